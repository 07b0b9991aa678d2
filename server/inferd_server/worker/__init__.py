"""Owns the engines and runs the batches."""
