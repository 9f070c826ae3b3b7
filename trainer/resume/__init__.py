"""Which checkpoint a run resumes from, whether it fits, and what becomes of the curve."""
