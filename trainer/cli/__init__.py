"""The command: exit codes, messages, the run id."""
