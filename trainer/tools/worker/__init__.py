"""The process in which `hydra/launcher=in_process` trains the jobs of a sweep."""
