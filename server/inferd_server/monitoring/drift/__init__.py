"""Drift: whether requests and answers are still like those that a version was made for."""
