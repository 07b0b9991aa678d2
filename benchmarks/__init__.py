"""Measurements that anyone can rerun; README.md says how."""
