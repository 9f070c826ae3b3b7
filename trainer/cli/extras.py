"""Packages that only some commands need, and the extra of Cadence that installs each."""

import importlib
from typing import Any

from trainer.lr import ConfigError

EXTRAS = {
    "sklearn": "digits",
    "datasets": "hub",
    "PIL": "images",
    "pyarrow": "table",
    "transformers": "text",
    "pytorch_optimizer": "optimizers",
    "matplotlib": "plots",
    "plotly": "report",
    "jinja2": "report",
    "scipy": "report",
    "pandas": "report",
    "safetensors": "export",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "optuna": "search",
    "cmaes": "search",
    "sqlalchemy": "search",
    "psycopg": "search",
    "submitit": "slurm",
    "ray": "ray",
    "peft": "lora",
}
"""The extra by the name under which its package is imported; pyproject.toml says what each extra installs."""


def needed(module: str, what: str, extra: str | None = None) -> Any:
    """Import a module that `what` needs; `extra` installs all that `what` needs, where the module's own does not.

    Raises:
        ConfigError: its package is not installed; the line names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (line := missing_extra(error, what, extra)) is None:
            raise
        raise ConfigError(line) from error


def needed_for_pictures() -> None:
    """Refuse, before anything is trained, a command that cannot draw its picture at the end."""
    needed("matplotlib", "the picture (--no-files leaves it out)")


def needed_for_report() -> None:
    """Refuse, before any run is read, a report that cannot be written at the end."""
    for module in ("plotly", "matplotlib", "pandas"):
        needed(module, "the report", "report")


def missing_extra(error: ModuleNotFoundError, what: str = "", extra: str | None = None) -> str | None:
    """The line that names the extra with the missing package; None where no extra has it."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return (
        f"{what or 'this'} needs {package}, which is not installed: pip install 'cadence[{extra or EXTRAS[package]}]'."
    )
