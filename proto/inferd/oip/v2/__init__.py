"""Version 2 of the Open Inference Protocol, with Triton's extensions."""
