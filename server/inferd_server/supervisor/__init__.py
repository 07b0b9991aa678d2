"""The process that starts the others, restarts them, and speaks for the server as a whole."""
