"""Parameter groups, and what torch and its companions lack in optimizers."""
