"""A list of runs: which there are, how they ended, what they reached, in what they differ."""
