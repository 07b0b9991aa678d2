"""The memory that a front shares with the worker, and its two ends."""
