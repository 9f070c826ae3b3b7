"""Tuning by short trainings: the learning rate, or one or two other numbers."""
