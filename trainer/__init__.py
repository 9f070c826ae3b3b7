"""The engine: the learning-rate clock, the owned update, callbacks, checkpoints and the assembly."""

from trainer.cli.deferred_packages import defer_packages

defer_packages()
