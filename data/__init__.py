"""What is trained on: data modules whose every random choice is a function of the seed and the update."""
