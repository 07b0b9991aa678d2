"""Replay: a recording sent to a server, and what it answers compared with what was recorded."""
