"""The commands `inferd export`, `inferd quantize` and `inferd check`."""
