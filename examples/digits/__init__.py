"""Handwritten digits: how the shipped model was trained, and a client that checks it."""
