"""Callbacks: one writes the learning rate and proves it, the rest only observe."""
