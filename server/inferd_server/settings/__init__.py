"""One settings file, environment variables and flags of the same names."""
