"""Traces of requests, made when they are over, and sent to an OTLP receiver."""
