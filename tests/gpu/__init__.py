"""What needs a GPU; every test skips with the reason where there is none."""
