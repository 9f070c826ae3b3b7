"""Cadence: train PyTorch models with a learning-rate curve that is explicit, checked and logged."""
