"""A page of what a sweep has found."""
