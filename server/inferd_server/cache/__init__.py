"""Answers kept for equal requests, and equal requests in flight answered by one execution."""
