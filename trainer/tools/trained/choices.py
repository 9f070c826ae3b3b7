"""What can be chosen of a trained run; without torch, for the help of commands."""

WHICH = ("best", "last")
"""Which weights of a run are loaded."""
