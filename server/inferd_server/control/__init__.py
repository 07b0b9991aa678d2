"""How the processes of one server talk about everything but requests."""
