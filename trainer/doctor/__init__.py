"""What a run's log says of its learning rate: findings with their evidence, and what to try."""

from trainer.doctor.diagnosis import SIGNS, examined
from trainer.doctor.log import Finding, Log, Series

__all__ = ["SIGNS", "Finding", "Log", "Series", "examined"]
