"""The whole curve of a run before it is trained."""
