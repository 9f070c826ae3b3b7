"""The walls of the house: who may import whom, how long files and functions may be, which words it speaks."""

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests import house
from tests.house import ROOT

FILES = house.python_files()
TARGETS = house.config_targets()


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def graph():
    """Which files of the rooms import which."""
    return house.import_graph({house.module_of(path): text(path) for path in FILES if house.room_of(path)})


def test_each_file_imports_only_what_its_room_may():
    assert [line for path in FILES for line in house.forbidden_imports(path, text(path))] == []


def test_each_package_that_a_room_may_import_is_imported_in_it():
    used = {room.path: set() for room in house.ROOMS}
    for path in FILES:
        if room := house.room_of(path):
            used[room.path] |= {module.split(".")[0] for module, _ in house.imports(text(path))}
    assert {room.path: unused for room in house.ROOMS if (unused := room.packages - used[room.path])} == {}


def test_each_file_keeps_to_the_rulers():
    assert [line for path in FILES for line in house.too_long(path, text(path), TARGETS)] == []


def test_names_say_what_they_are():
    product = [path for path in FILES if path.parts[0] != "tests"]
    assert [line for path in product for line in house.banned_names(path, text(path))] == []


def spoken():
    """The files whose words a reader meets; the changelog names what was renamed, and golden values are the peers'."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    left_out = ("tests/house.py", "tests/test_house.py", "tests/same_bits.py", "tests/lr/golden/", "CHANGELOG.md")
    kinds = (".py", ".md", ".yaml", ".toml", "Makefile")
    return [Path(name) for name in listed if name.endswith(kinds) and not name.startswith(left_out)]


def test_each_file_speaks_the_words_of_the_field():
    assert [line for path in spoken() for line in house.banned(path, text(path))] == []


def test_no_files_import_each_other_in_a_circle(graph):
    assert house.circles(graph) == []


def test_no_rooms_import_each_other_in_a_circle(graph):
    assert house.circles(house.room_graph(graph)) == []


def test_every_file_of_the_product_has_a_room():
    outside = ("tests", "scripts", "experiments", "benchmarks", "examples")
    homeless = [path for path in FILES if path.parts[0] not in outside and house.room_of(path) is None]
    assert homeless == [Path("docs/conf.py"), Path("setup.py"), Path("trainer/__init__.py")]


def test_the_front_door_fits_on_one_screen():
    assert len(text("train.py").splitlines()) <= house.FRONT_DOOR_LINES


def test_the_page_has_the_table_of_the_rooms():
    assert text("docs/house.md") == house.page(), "run python tests/house.py"


def test_the_way_to_the_rate_is_six_files_of_which_each_imports_the_next(graph):
    section = text("docs/house.md").partition("## From the command to the rate")[2].partition("## ")[0]
    way = [line.split("`")[1] for line in section.splitlines() if line[:1].isdigit()]
    assert len(way) <= 6
    assert (way[0], way[-1]) == ("train.py", "trainer/engine/lr_control.py")
    modules = [house.module_of(name) for name in way]
    assert [step for step in pairwise(modules) if step[1] not in graph[step[0]]] == []
    assert 'group["lr"] = lr' in text(way[-1])


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("trainer/lr/rex.py", "import torch"),
        ("trainer/lr/rex.py", "def f():\n    from numpy import array"),
        ("trainer/lr/rex.py", "from trainer.engine.module import Module"),
        ("trainer/engine/module.py", "import omegaconf"),
        ("trainer/engine/module.py", "from trainer.config import resolve"),
        ("trainer/engine/update.py", "from trainer.measure.adascale import AdaScale"),
        ("trainer/measure/x.py", "from trainer.distributed.rank_monitor import RankMonitor"),
        ("trainer/log/x.py", "import data.digits"),
        ("trainer/distributed/launch/x.py", "from trainer.cli.run_id import run_id"),
        (
            "trainer/resume/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trainer.config.resolve",
        ),
        ("trainer/config/x.py", "from trainer.run import run"),
        ("trainer/config/x.py", "from models.mlp import MLP"),
        ("trainer/sweep/x.py", "from trainer.tools.report.runs import found"),
        ("trainer/run.py", "import tests.conftest"),
        ("experiments/run.py", "from tests import house"),
        ("benchmarks/sweep.py", "import experiments.run"),
        ("scripts/plan.py", "import benchmarks.report"),
        ("trainer/log/x.py", "import importlib; importlib.import_module('trainer.engine.clock')"),
        ("trainer/log/x.py", "from trainer.lr import needed; needed('onnx.helper', 'a picture')"),
        ("train.py", "import torch"),
        ("models/mlp.py", "import pytorch_lightning"),
        ("data/digits.py", "from trainer.lr import Horizon"),
        ("data/digits.py", "import hydra"),
    ],
)
def test_a_planted_upward_import_is_found_with_its_file_line_and_rule(path, source):
    (found,) = house.forbidden_imports(Path(path), source)
    assert found.startswith(f"{path}:{len(source.splitlines())} imports")


def test_a_planted_circle_of_files_is_found_also_where_it_is_for_types_alone():
    planted = {
        "trainer.lr.one": "from trainer.lr.two import f",
        "trainer.lr.two": "def f():\n    import trainer.lr.three",
        "trainer.lr.three": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from trainer.lr import one",
        "trainer.lr.four": "from trainer.lr.one import g",
    }
    assert house.circles(house.import_graph(planted)) == [["trainer.lr.one", "trainer.lr.three", "trainer.lr.two"]]


def test_a_planted_circle_of_rooms_is_found_where_no_files_make_one():
    planted = {
        "trainer.engine.a": "import trainer.measure.a",
        "trainer.measure.a": "",
        "trainer.measure.b": "import trainer.engine.b",
        "trainer.engine.b": "",
    }
    graph = house.import_graph(planted)
    assert house.circles(graph) == []
    assert house.circles(house.room_graph(graph)) == [["trainer.engine", "trainer.measure"]]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\n" * 401, "has 401 lines, more than 400"),
        ("def f():\n" + "    x = 1\n" * 40, "f has 41 lines, more than 40"),
        ("def f(a, b, c, d, *, e, f, g): ...", "f has 7 parameters, more than 6"),
        ("class K:\n    def __init__(self, a, b, c, d, e, f, g): ...", "K has 7 parameters"),
    ],
)
def test_what_is_planted_too_long_is_found(source, says):
    (found,) = house.too_long(Path("trainer/x.py"), source, {"ours"})
    assert says in found


@pytest.mark.parametrize(
    "source",
    [
        "def f(a, b, c, d, e, f): ...",
        "class K:\n    def m(self, a, b, c, d, e, f): ...",
        "def ours(a, b, c, d, e, f, g): ...",
        "class ours:\n    def __init__(self, a, b, c, d, e, f, g): ...",
    ],
)
def test_six_parameters_are_allowed_and_any_number_that_a_config_gives(source):
    assert list(house.too_long(Path("trainer/x.py"), source, {"ours"})) == []


@pytest.mark.parametrize(
    "word", ["woven = 1", "class Lifeline: ...", "# the crew at work", "def guarded_main(): ...", "x.dials"]
)
def test_a_planted_house_word_is_found(word):
    (found,) = house.banned(Path("trainer/x.py"), f"\n{word}")
    assert found.startswith("trainer/x.py:2 says")


@pytest.mark.parametrize("text", ["an untold story", "the legacy layout", "radial", "crewel"])
def test_other_words_that_hold_one_are_left_alone(text):
    assert list(house.banned(Path("x.md"), text)) == []


def test_a_planted_name_that_says_nothing_is_found():
    source = "def whole(): ...\nclass K:\n    def _rest(self): ..."
    assert [line.split()[0] for line in house.banned_names(Path("trainer/x.py"), source)] == [
        "trainer/x.py:1",
        "trainer/x.py:3",
    ]
    assert len(list(house.banned_names(Path("trainer/utils.py"), ""))) == 1
