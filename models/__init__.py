"""Nets from plain numbers, one architecture a file: no config, no learning rate, no loss."""
