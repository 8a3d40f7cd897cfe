"""Attacks on explanations: an objective, an optimiser, and one threat a file."""
