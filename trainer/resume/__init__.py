"""Which checkpoint a run resumes from, whether it fits, and how its curve changes."""
