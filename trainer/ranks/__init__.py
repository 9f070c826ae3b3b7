"""Several processes as one run: who they are, whether they agree, and what becomes of all when one is lost."""
