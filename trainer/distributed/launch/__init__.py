"""Which program started this process, signals that stop it, and requeueing. Standard library only."""
