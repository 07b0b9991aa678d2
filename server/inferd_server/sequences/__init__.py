"""Sequences: requests that build on each other, whose state the server keeps between them."""
