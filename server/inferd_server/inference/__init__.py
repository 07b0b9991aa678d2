"""One inference request: from the bytes of its message to the bytes of its response."""
