"""Findings about the learning rate of a run, from its log: the evidence, and what to try."""

from trainer.doctor.log import Finding, Log, Series, read_log
from trainer.doctor.signs import NAMES, SIGNS, examine

__all__ = ["NAMES", "SIGNS", "Finding", "Log", "Series", "examine", "read_log"]
