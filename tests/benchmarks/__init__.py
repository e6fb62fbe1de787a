"""What is promised about speed and memory, measured: `make bench`."""
