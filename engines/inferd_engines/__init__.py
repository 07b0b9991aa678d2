"""Runtimes that execute models, behind one interface."""
