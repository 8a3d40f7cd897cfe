"""Floor 2: one method a file; every file registers its method."""
