"""What `inferd models` can do with sealed folders."""
