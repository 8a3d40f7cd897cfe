"""Floor 4: studies: what is compared on what, how it is run and kept, what its numbers say."""
