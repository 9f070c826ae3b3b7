"""Docstrings of the clock room are its specification: their examples run, and every curve states formula and source."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import trainer.lr

CONF = Path(__file__).parents[2] / "conf"
MODULES = [importlib.import_module(f"trainer.lr.{info.name}") for info in pkgutil.iter_modules(trainer.lr.__path__)]
OPTIONS = [file for group in ("schedule", "warmup", "cooldown") for file in sorted((CONF / group).glob("*.yaml"))]
TARGETS = {
    match[1] for file in OPTIONS if (match := re.search(r"^_target_: trainer\.lr\.(\S+)", file.read_text(), re.M))
}
CURVES = [getattr(trainer.lr, name) for name in sorted(TARGETS)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_examples_of_a_module_run(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.__name__)
def test_a_curve_states_its_formula(curve):
    assert "(t)" in curve.__doc__
    assert list(inspect.signature(curve).parameters)[0] == "horizon"
    kinds = {parameter.kind for parameter in inspect.signature(curve).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
