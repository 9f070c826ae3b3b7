"""The walls of the house: who may import whom, and how long a file and a function may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("trainer", "models", "data", "scripts", "tests", "hydra_plugins", "train")
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "base"}
LINES, STATEMENTS = 200, 50

# The first rule whose prefix fits a file holds: what it may import of third parties, and of the house.
STDLIB = {*sys.stdlib_module_names, "__main__"}
RULES = [
    ("trainer/lr/", set(), {"trainer.lr"}),
    ("trainer/assemble/", {"hydra", "omegaconf", "torch", "pytorch_lightning", "rich"}, {"trainer"}),
    ("trainer/search/", {"optuna", "sqlalchemy", "scipy"}, {"trainer.lr", "trainer.sweep.search"}),
    (
        "trainer/",
        {
            "torch",
            "pytorch_lightning",
            "lightning_fabric",
            "torchmetrics",
            "tensorboard",
            "rich",
            "google_crc32c",
            "pytorch_optimizer",
        },
        {"trainer", "!trainer.assemble"},
    ),
    ("train.py", {"hydra", "omegaconf"}, {"trainer"}),
    ("models/", {"torch"}, {"models"}),
    ("data/", {"torch", "pytorch_lightning", "numpy", "sklearn", "datasets", "PIL"}, {"data"}),
    (
        "hydra_plugins/",
        {"hydra", "omegaconf", "rich", "submitit", "ray"},
        {
            "trainer.assemble",
            "trainer.lr",
            "trainer.sweep.search",
            "trainer.distributed.launch.signals",
            "hydra_plugins",
        },
    ),
]


def python_files(root=ROOT):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    return sorted(Path(line) for line in listed.stdout.split() if (root / line).exists())


def imports(source):
    """Every module that a source imports, with its line; `from a import b` counts as `a`, and as `a.b` in the house."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute in this house"
            for alias in node.names:
                inside = (node.module or "").split(".")[0] in ROOMS
                yield (f"{node.module}.{alias.name}" if inside else node.module), node.lineno


def within(module, package):
    return module == package or module.startswith(f"{package}.")


def violations(path, source):
    rule = next((rule for rule in RULES if str(path).startswith(rule[0])), None)
    if rule is None:
        return
    _, outside, inside = rule
    for module, line in imports(source):
        root = module.split(".")[0]
        if root in ROOMS:
            barred = [name[1:] for name in inside if name.startswith("!")]
            fine = any(within(module, name) for name in inside) and not any(within(module, name) for name in barred)
        else:
            fine = root in STDLIB or root in outside
        if not fine:
            allowed = ", ".join(sorted(outside | inside))
            yield f"{path}:{line} imports {module}: {rule[0]} may import {allowed} and the standard library"


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_a_file_imports_only_what_its_room_may(path):
    assert list(violations(path, (ROOT / path).read_text())) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("trainer/lr/rex.py", "import torch"),
        ("trainer/lr/rex.py", "def f():\n    from numpy import array"),
        ("trainer/lr/rex.py", "from trainer.engine.module import Module"),
        ("trainer/module.py", "import omegaconf"),
        ("trainer/module.py", "from trainer.assemble import run"),
        ("trainer/callbacks/x.py", "import data.digits"),
        ("trainer/assemble/run.py", "from models.mlp import MLP"),
        ("train.py", "import torch"),
        ("models/mlp.py", "import pytorch_lightning"),
        ("data/digits.py", "from trainer.lr import Horizon"),
        ("data/digits.py", "import hydra"),
    ],
)
def test_a_planted_forbidden_import_is_found_with_its_file_line_and_rule(path, source):
    (found,) = violations(Path(path), source)
    assert found.startswith(f"{path}:{len(source.splitlines())} imports")


@pytest.mark.parametrize("path", python_files(), ids=str)
def test_a_file_is_short_and_its_name_says_what_it_holds(path):
    assert path.stem not in FORBIDDEN_NAMES
    if path.parts[0] != "tests":
        assert len((ROOT / path).read_text().splitlines()) <= LINES


@pytest.mark.parametrize("path", [path for path in python_files() if path.parts[0] != "tests"], ids=str)
def test_a_function_fits_on_a_screen(path):
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno + 1 <= STATEMENTS, f"{path}:{node.lineno} {node.name}"


def test_the_front_door_fits_on_one_screen():
    assert len((ROOT / "train.py").read_text().splitlines()) <= 40


def test_nothing_imports_scripts_or_tests():
    for path in (path for path in python_files() if path.parts[0] not in ("scripts", "tests")):
        for module, line in imports((ROOT / path).read_text()):
            assert module.split(".")[0] not in ("scripts", "tests"), f"{path}:{line}"
