"""Cadence: train PyTorch models with the learning rate decided in the open. Importing it imports nothing heavy."""
