"""What a panel says: models, prompts, samples, settings, metrics of the user's own; no torch here."""
