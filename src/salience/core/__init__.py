"""Floor 0: what every method is made of: draws, the Monte-Carlo engine, models, explanations, the registry."""
