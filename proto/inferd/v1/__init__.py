"""What the Open Inference Protocol lacks, version 1."""
