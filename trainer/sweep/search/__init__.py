"""A search: which values to try next, and what came of those that were tried. It knows Optuna and no jobs."""
