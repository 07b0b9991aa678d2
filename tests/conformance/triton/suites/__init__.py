"""What Triton's own tests expect, written anew and short, one module for each of its suites."""
