"""Families of small trainings, runs of them that are healthy or made bad, and what the doctor says of each."""
