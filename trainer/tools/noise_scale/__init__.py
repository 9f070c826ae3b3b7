"""The gradient noise scale along a run."""
