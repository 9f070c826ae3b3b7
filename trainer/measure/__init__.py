"""Measurements of a run: noise scale, norms, sharpness, the gain of AdaScale."""
