"""Files: replaced at once, and with a checksum of all their bytes; and whether the process that wrote one runs."""
