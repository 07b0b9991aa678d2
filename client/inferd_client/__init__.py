"""What other services import to call an inference server."""
