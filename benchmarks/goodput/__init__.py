"""What a server still answers in time when three times as much comes as it can do."""
