"""The switchboard: from a config to objects, from an error to one line."""
