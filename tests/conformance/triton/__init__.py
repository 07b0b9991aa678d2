"""Cases for tritonclient, run in its own environment: `python -m ...triton.MODULE HOST:PORT`."""
