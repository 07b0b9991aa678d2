"""Receives calls and sends answers; the only package that knows gRPC."""
