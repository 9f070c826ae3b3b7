"""One update and one run: the module, the update, the clock, and what writes the learning rate."""
