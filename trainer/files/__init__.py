"""Files: replaced at once, and with a checksum of all their bytes."""
