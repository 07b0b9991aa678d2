"""Shared memory between a front process and the worker process, and what travels in it."""
