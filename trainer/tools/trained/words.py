"""Words of the commands for a trained run, which need no torch."""

WHICH = ("best", "last")
"""Which weights of a run are loaded."""
