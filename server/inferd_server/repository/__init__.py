"""Models on disk, their versions and their life."""
