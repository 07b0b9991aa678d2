"""A page on the metrics port that shows what the server does, for people."""
