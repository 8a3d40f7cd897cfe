"""Floor 3: models by name and photographs from files."""
