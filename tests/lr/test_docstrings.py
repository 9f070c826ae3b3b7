"""Docstrings of the clock room are its specification: their examples run, and every curve states formula and source."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import trainer.lr
from trainer.lr import schedule, warmup

MODULES = [importlib.import_module(f"trainer.lr.{info.name}") for info in pkgutil.iter_modules(trainer.lr.__path__)]
CURVES = [
    function
    for module in (schedule, warmup)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_examples_of_a_module_run(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.__name__)
def test_a_curve_states_its_formula(curve):
    assert "(t)" in curve.__doc__ or "1, then" in curve.__doc__
    assert list(inspect.signature(curve).parameters)[0] == "horizon"
    kinds = {parameter.kind for parameter in inspect.signature(curve).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
