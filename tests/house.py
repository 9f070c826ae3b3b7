"""The plan of the house: its rooms from the bottom up, what each may import, and what breaks a rule.

`tests/test_house.py` holds the code to it, and the table in docs/house.md is written from it:

    python tests/house.py          # writes the table of docs/house.md
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES, FUNCTION_LINES, PARAMETERS, FRONT_DOOR_LINES = 400, 40, 6, 40
PAGE, BEGIN, END = ROOT / "docs" / "house.md", "<!-- rooms -->", "<!-- end of rooms -->"
FORBIDDEN_FILES = {"utils", "common", "helpers", "misc", "base"}
TORCH = {"torch", "pytorch_lightning"}
FABRIC = {"lightning_fabric"}
HYDRA = {"hydra", "omegaconf"}


@dataclass(frozen=True)
class Room:
    """A folder or file, what it holds, the rooms it may import beside itself, and the packages of third parties."""

    path: str
    holds: str
    rooms: frozenset[str]
    packages: frozenset[str]

    @property
    def module(self) -> str:
        """Its dotted name."""
        return self.path.removesuffix(".py").rstrip("/").replace("/", ".")


def _rooms() -> Iterator[Room]:
    below: set[str] = set()
    for level in LEVELS:
        rooms = [Room(path, holds, frozenset(below), frozenset(packages)) for path, holds, packages in level]
        yield from rooms
        below |= {room.module for room in rooms}


LEVELS: list[list[tuple[str, str, set[str]]]] = [
    [
        ("trainer/lr/", "the learning rate: horizon, schedules, warm-ups, scaling, policy, plan, lint", set()),
        (
            "trainer/files/",
            "files that are replaced at once, and that end with a checksum of their bytes; whether a process runs",
            {"google_crc32c", "numpy"},
        ),
    ],
    [
        (
            "trainer/distributed/launch/",
            "who launched this process; the lock of a folder, signals, requeue, the limit of restarts",
            set(),
        ),
    ],
    [
        ("trainer/optim/", "parameter groups, composite optimizer, what no library has", {"torch"}),
        (
            "trainer/log/",
            "metric buffer, TensorBoard, CSV, MLflow, W&B, console, validations",
            TORCH | {"tensorboard", "rich", "google", "google_crc32c", "mlflow", "wandb"},
        ),
        ("trainer/cli/", "the command, exit codes, messages, run id", HYDRA | {"torch", "yaml"}),
    ],
    [
        (
            "trainer/engine/",
            "one update and one run: module, step, update, clock, learning-rate control, plateau, averaging",
            TORCH | {"torchmetrics", "lightning_utilities", "numpy"},
        )
    ],
    [
        (
            "trainer/measure/",
            "noise scale, micro-gradients, AdaScale, norms, sharpness; memory, and where the time of an update goes",
            TORCH | {"lightning_utilities"},
        ),
        ("trainer/distributed/", "ranks that watch each other; strategies", TORCH | FABRIC),
    ],
    [
        (
            "trainer/checkpoint/",
            "atomic files, the callback that writes them, snapshots, weights to start from",
            TORCH | FABRIC | {"safetensors"},
        )
    ],
    [("trainer/resume/", "which checkpoint, does it fit, the history of the curve and its policies", TORCH)],
    [("trainer/config/", "from YAML to values and objects; resolve", HYDRA | TORCH | {"rich"})],
    [
        (
            "trainer/sweep/",
            "jobs as processes, device pool, scheduler, watchdog, shared prefix, search",
            HYDRA | {"rich", "optuna", "sqlalchemy", "scipy", "submitit", "ray"},
        ),
        ("trainer/doctor/", "what a run's log says to be wrong", {"pytorch_lightning"}),
    ],
    [("trainer/run.py", "the whole way: resolve, build, fit, evaluate, result", HYDRA)],
    [
        (
            "trainer/tools/",
            "what a person runs beside training: plan, dry run, range test, tune, report, list of runs, noise scale, "
            "doctor, gallery, reference; with a trained run: predictions, scores, exports; the worker that trains jobs "
            "of a sweep in one process",
            HYDRA
            | TORCH
            | FABRIC
            | {
                "numpy",
                "scipy",
                "sklearn",
                "pandas",
                "matplotlib",
                "plotly",
                "jinja2",
                "optuna",
                "rich",
                "yaml",
                "onnxruntime",
                "safetensors",
            },
        )
    ],
    [
        (
            "cadence/",
            "the public face: the command, its subcommands and their completion; fit, load and plan from Python",
            HYDRA | TORCH,
        )
    ],
    [("train.py", "the front door: one screen", set())],
]
"""Each level may import all levels before it, and no other room of its own level."""

OTHERS = [
    Room("models/", "nets from plain numbers, one architecture a file", frozenset(), frozenset({"torch", "peft"})),
    Room(
        "data/",
        "data sets; order and augmentation are functions of (seed, update)",
        frozenset(),
        frozenset(
            TORCH | FABRIC | {"lightning_utilities", "numpy", "sklearn", "datasets", "PIL", "pyarrow", "transformers"}
        ),
    ),
    Room(
        "hydra_plugins/",
        "launchers and sweepers: Hydra finds them only here",
        frozenset({"trainer.lr", "trainer.cli", "trainer.distributed.launch", "trainer.config", "trainer.sweep"}),
        frozenset(HYDRA | {"optuna"}),
    ),
]
ROOMS = [*_rooms(), *OTHERS]
TOP = {
    "trainer",
    "models",
    "data",
    "hydra_plugins",
    "cadence",
    "train",
    "scripts",
    "tests",
    "experiments",
    "benchmarks",
    "examples",
}
NOBODY_IMPORTS = ("scripts", "tests", "experiments", "benchmarks", "examples")
STDLIB = {*sys.stdlib_module_names, "__main__"}

BANNED_WORDS = (
    "woven weave splice splices spliced lineage rescaled nursery guardian crew lifeline spoke doomed trunk trunks "
    "parting dial dials outlet outlets futile guarded drain drains drained"
).split()
"""Words that only this house once used: a newcomer would have to learn them. In prose and in names."""
BANNED_NAMES = (
    "told whole chosen place facts words rows lines stamp turn rest mark marks own part pace owners goals spaces "
    "spacing board pool hub link member watch halt agreement hold leave leg legs block recipe mistake refusal thing"
).split()
"""Names of functions, classes and files that say too little, or once meant four things."""
BANNED_VARIABLES = ("told", "leg", "legs", "recipe", "refusal")
"""Names that nothing may have, variables included."""


def python_files(root: Path = ROOT) -> list[Path]:
    """The Python files of the project, as git knows them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    return sorted(Path(line) for line in listed if (root / line).exists())


def room_of(path: Path) -> Room | None:
    """The room of a file: the one with the longest path that it lies in."""
    fitting = [room for room in ROOMS if str(path).startswith(room.path)]
    return max(fitting, key=lambda room: len(room.path), default=None)


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    return str(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(source: str) -> Iterator[tuple[str, int]]:
    """Every module that a source imports, with its line; in the house, `from a import b` counts as `a.b`.

    Of what `import_module` imports, the modules of the house that are named in place are found, and of `needed`, which
    imports a package that may be missing, all that are.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise SyntaxError(f"line {node.lineno}: imports are absolute here")
            inside = (node.module or "").split(".")[0] in TOP
            for alias in node.names:
                yield (f"{node.module}.{alias.name}" if inside else str(node.module)), node.lineno
        elif isinstance(node, ast.Call) and (called := ast.unparse(node.func)).endswith(("import_module", "needed")):
            named = [str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant)]
            yield from ((name, node.lineno) for name in named if called == "needed" or name.split(".")[0] in TOP)


def room_of_module(module: str) -> str:
    """The dotted name of the room that a module belongs to."""
    fitting = [room.module for room in ROOMS if module == room.module or module.startswith(f"{room.module}.")]
    return max(fitting, key=len, default=module.split(".")[0])


def forbidden_imports(path: Path, source: str) -> Iterator[str]:
    """A line for each import that the room of a file may not make."""
    room = room_of(path)
    if room is None:
        if path.parts[0] != "tests":
            yield from _imports_of_programs(path, source)
        return
    for module, line in imports(source):
        root = module.split(".")[0]
        if root in TOP:
            allowed = root not in NOBODY_IMPORTS and room_of_module(module) in {room.module, *room.rooms, "trainer"}
        else:
            allowed = root in STDLIB or root in room.packages
        if not allowed:
            may = ", ".join(sorted(room.rooms | room.packages)) or "nothing"
            yield f"{path}:{line} imports {module}: {room.path} may import {may} and the standard library"


def _imports_of_programs(path: Path, source: str) -> Iterator[str]:
    """A line for each import of another folder of programs; experiments may import benchmarks."""
    own = {"experiments": {"experiments", "benchmarks"}}.get(path.parts[0], {path.parts[0]})
    for module, line in imports(source):
        root = module.split(".")[0]
        if root in NOBODY_IMPORTS and root not in own:
            yield f"{path}:{line} imports {module}: nothing imports {root}/"


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which files of the house each file imports, late imports and those for types alone included."""
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, source in sources.items():
        for imported, _ in imports(source):
            found = imported if imported in sources else imported.rpartition(".")[0]
            if found in sources and found != module:
                graph[module].add(found)
    return graph


def room_graph(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same between rooms."""
    rooms: dict[str, set[str]] = {}
    for module, imported in graph.items():
        here = room_of_module(module)
        rooms.setdefault(here, set()).update(room_of_module(other) for other in imported)
        rooms[here].discard(here)
    return rooms


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The circles of a graph: its strongly connected parts of two members or more, each sorted."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        stack = list(graph.get(start, ()))
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                stack.extend(graph.get(node, ()))
        return seen

    reached = {node: reach(node) for node in graph}
    found = {tuple(sorted({node} | {o for o in reached[node] if node in reached.get(o, ())})) for node in graph}
    return sorted(list(circle) for circle in found if len(circle) > 1)


def config_targets(root: Path = ROOT) -> set[str]:
    """The names of what configs call, and the base of data sets: their parameters are the keys of a config."""
    pattern = re.compile(r"_target_:\s*(?:str = \")?([\w.]+)")
    return {"DataModule"} | {
        target.rpartition(".")[2]
        for path in [*(root / "conf").rglob("*.yaml"), *(root / "hydra_plugins").glob("*.py")]
        for target in pattern.findall(path.read_text(encoding="utf-8"))
    }


def too_long(path: Path, source: str, targets: set[str]) -> Iterator[str]:
    """A line for each file, function and signature that is too long."""
    if (length := len(source.splitlines())) > FILE_LINES:
        yield f"{path} has {length} lines, more than {FILE_LINES}"
    tree = ast.parse(source)
    owners = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        name = getattr(owners[node], "name", "") if node.name == "__init__" else node.name
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES:
            yield f"{path}:{node.lineno} {name} has {length} lines, more than {FUNCTION_LINES}"
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len(given) - bool(given and given[0].arg in ("self", "cls"))
        if count > PARAMETERS and name not in targets:
            yield f"{path}:{node.lineno} {name} has {count} parameters, more than {PARAMETERS}"


def banned(path: Path, text: str, words: Sequence[str] = BANNED_WORDS) -> Iterator[str]:
    """A line for each house word in a text: in prose, and in the parts of names."""
    unfit = re.compile(rf"(?<![a-zA-Z])({'|'.join(words)})(?![a-z])", re.IGNORECASE)
    for number, line in enumerate(text.splitlines(), start=1):
        if match := unfit.search(line):
            yield f"{path}:{number} says {match[1]!r}: use the field's word"


def banned_names(path: Path, source: str) -> Iterator[str]:
    """A line for each function, class or file whose name says too little, and for each variable among the worst."""
    if path.stem in {*BANNED_NAMES, *FORBIDDEN_FILES}:
        yield f"{path}: name the file by what it holds"
    for node in ast.walk(ast.parse(source)):
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if named and node.name.lstrip("_") in BANNED_NAMES:
            yield f"{path}:{node.lineno} {node.name}: name it by what it gives"
        name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else None
        if name in BANNED_VARIABLES:
            yield f"{path}:{node.lineno} {name}: name it by what it holds"


def table() -> str:
    """The rooms as a table in Markdown."""
    rows = [f"| `{room.path}` | {room.holds} | {', '.join(sorted(room.packages)) or 'none'} |" for room in ROOMS]
    return "\n".join(["| room | holds | packages beside the standard library |", "| --- | --- | --- |", *rows])


def page() -> str:
    """docs/house.md with the table of today."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
