"""Sealed models: encrypted and signed files, and the keys that open them."""
