"""Processes of a server: what they are made of."""
