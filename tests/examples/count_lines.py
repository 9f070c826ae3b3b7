"""Lines of code that each example takes here and in other tools, counted in files that run, for docs/examples.md.

`python -m tests.examples.count_lines` writes the table of the page again.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.distributed.worlds import ROOT

EXAMPLES, PAGE = ROOT / "examples", ROOT / "docs" / "examples.md"
BEGIN, END = "<!-- lines -->", "<!-- end of lines -->"
HEAD = ("example", "shows", "Cadence", "Lightning", "Trainer", "template")


def folders() -> list[Path]:
    """The examples."""
    return sorted(path.parent for path in EXAMPLES.glob("*/README.md"))


def lines_of(tree: ast.AST, source: str) -> set[int]:
    """The numbers of the lines with code, without comments and docstrings."""
    texts = source.splitlines()
    found: set[int] = set()
    for node in ast.walk(tree):
        if hasattr(node, "lineno"):
            found.update(range(node.lineno, node.end_lineno + 1))  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            found.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return {number for number in found if (text := texts[number - 1].strip()) and not text.startswith("#")}


def python_lines(file: Path, without: str | None = None) -> int:
    """Lines of code in a file, without the function `without`, what starts it, and imports for it alone."""
    source = file.read_text()
    tree = ast.parse(source)
    if without is not None:
        kept = [node for node in tree.body if not isinstance(node, ast.If) and getattr(node, "name", None) != without]
        used = {one.id for node in kept for one in ast.walk(node) if isinstance(one, ast.Name)}
        tree.body = [node for node in kept if not _imported(node) or used & _imported(node)]
    return len(lines_of(tree, source))


def _imported(node: ast.stmt) -> set[str]:
    """The names that an import makes known."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return set()
    return {alias.asname or alias.name.partition(".")[0] for alias in node.names}


def yaml_lines(file: Path) -> int:
    """Lines of a config without comments."""
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in file.read_text().splitlines())


def own_files(folder: Path) -> list[Path]:
    """The code of an example, without programs that make its data, and loops by hand beside its command."""
    files = sorted(folder.glob("*.py"))
    return [file for file in files if not (file.name.startswith("make_") or file.stem.endswith("_loop"))]


def shared_lines(folder: Path, peer: Path) -> int:
    """Lines of the example's own code that a counterpart imports, with all that these need."""
    known: dict[str, tuple[ast.stmt, str]] = {}
    for file in own_files(folder):
        source = file.read_text()
        for node in ast.parse(source).body:
            known |= dict.fromkeys(_defined(node), (node, source))
    modules = {file.stem for file in own_files(folder)}
    imports = [node for node in ast.walk(ast.parse(peer.read_text())) if isinstance(node, ast.ImportFrom)]
    waiting = [alias.name for node in imports if node.module in modules for alias in node.names]
    taken: dict[int, int] = {}
    while waiting:
        node, source = known[waiting.pop()]
        if id(node) not in taken:
            taken[id(node)] = len(lines_of(ast.Module([node], []), source))
            waiting += [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and one.id in known]
    return sum(taken.values())


def _defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module defines, other than by an import."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def counts(folder: Path) -> dict[str, int | None]:
    """Lines by tool; None where there is no counterpart."""
    conf, peers = sorted((folder / "conf").rglob("*.yaml")), folder / "peers"
    lightning, trainer = peers / "lightning.py", peers / "transformers_trainer.py"
    template = peers / "template.yaml"
    found: dict[str, int | None] = {"Cadence": sum(map(python_lines, own_files(folder))) + sum(map(yaml_lines, conf))}
    for tool, file in (("Lightning", lightning), ("Trainer", trainer)):
        found[tool] = python_lines(file) + shared_lines(folder, file) if file.exists() else None
    found["template"] = (
        python_lines(lightning, without="main") + shared_lines(folder, lightning) + yaml_lines(template)
        if template.exists()
        else None
    )
    return found


def table() -> str:
    """The table of the page, from the titles and first sentences of the READMEs, and the counts."""
    rows = [HEAD, ("---", "---", *["---:"] * 4)]
    for folder in folders():
        title, _, rest = (folder / "README.md").read_text().partition("\n")
        sentence = re.split(r"(?<=\.)\s", " ".join(rest.split()))[0]
        cells = ["–" if count is None else str(count) for count in counts(folder).values()]
        rows.append((f"[{title.removeprefix('# ')}](../examples/{folder.name})", sentence, *cells))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page() -> str:
    """docs/examples.md with the table of today."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
