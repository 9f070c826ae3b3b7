"""The pages that are written from the configs and the docstrings: every config key, and the functions for users."""
