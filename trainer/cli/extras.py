"""Packages that only some commands need, and the extra of Cadence that installs each."""

import importlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
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
    "mlflow": "mlflow",
    "wandb": "wandb",
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


def missing_extra(error: ModuleNotFoundError, what: str = "", extra: str | None = None) -> str | None:
    """The line that names the extra with the missing package; None where no extra has it."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    extra = extra or EXTRAS[package]
    return f"{what or 'this'} needs {package}, which is not installed (extra {extra}): {install_command(extra)}."


def install_command(extra: str) -> str:
    """The command that installs what an extra has. Cadence is on no package index, so it names the packages."""
    from importlib.metadata import PackageNotFoundError, requires  # late: only this message needs it

    try:
        found = _packages(extra, requires("cadence") or [])
    except PackageNotFoundError:  # a checkout that is not installed
        found = []
    return shlex.join(["pip", "install", *(found or [f"{Path(__file__).parents[2]}[{extra}]"])])


def _packages(extra: str, declared: Sequence[str]) -> list[str]:
    """The packages of an extra, among what the metadata of Cadence declares as `NAME>=1; extra == "EXTRA"`."""
    found: list[str] = []
    for line in declared:
        package, _, marker = line.partition(";")
        if not re.search(rf"""extra == ["']{extra}["']""", marker):
            continue
        inner = re.fullmatch(r"cadence\[(.*)\]", package.strip())
        found += (
            [one for name in inner[1].split(",") for one in _packages(name, declared)] if inner else [package.strip()]
        )
    return found
