"""Floor 1: what is done to images, masks and weights."""
