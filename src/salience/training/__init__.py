"""Training: architectures, a plain loop, and one recipe a file."""
