"""Our client and another package of the same protocol in one process of their own environment."""
