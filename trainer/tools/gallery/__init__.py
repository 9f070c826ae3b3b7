"""The gallery of all curves."""
