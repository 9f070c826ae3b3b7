"""Several processes as one run: launch, strategies, and ranks that watch each other."""
