"""The classes of `lightning_modules`, of the other package; which type checkers and ruff see only there."""

from pathlib import Path

SOURCE = Path(__file__).with_name("lightning_modules.py").read_text()
exec(SOURCE.replace("import pytorch_lightning as pl", "import lightning.pytorch as pl"))
