"""Training with an explicit learning-rate curve: docs/house.md says what each package holds."""

from trainer.cli.deferred_packages import defer_packages

defer_packages()
