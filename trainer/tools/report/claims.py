"""The claims of an experiment, and the plots that show them: what `claims.json` beside the runs holds.

Whoever has measured the claims writes the file (`write_claims`); the report reads it, and draws a table of the claims
and a figure for each plot.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from trainer.lr import ConfigError

CLAIMS = "claims.json"
UPDATE, SAMPLES = "update", "samples"
"""The x axes of a plot of curves; every other x is a key of the config, or `global batch`."""


@dataclass(frozen=True)
class Claim:
    """A sentence, what was measured, what it was held against, and whether it holds.

    `measured` and `threshold` are numbers, or words where one number does not say it; `relation` stands between them
    and the threshold: `at most`, `at least`, `between`. `note` says how it was measured, as `mean of 3 seeds`. `kind`
    is claim (it must hold), control (it must not hold) or note (it decides nothing); `outcome` is the word of the
    verdict, where yes or no does not say it.
    """

    text: str
    measured: float | str
    relation: str
    threshold: float | str
    holds: bool
    source: str = ""
    note: str = ""
    kind: str = "claim"
    outcome: str = ""

    @property
    def is_as_it_must(self) -> bool:
        """Whether a claim holds, and a control does not."""
        return {"claim": self.holds, "control": not self.holds}.get(self.kind, True)


@dataclass(frozen=True)
class Plot:
    """A figure: `y` against `x`, one line for each value of the key `lines`, one panel for each value of `panels`.

    With `x` a key of the config (or `global batch`), `y` is a metric of `result.json`, or its `updates` or `seconds`:
    means over seeds with their standard deviation. With `x` `update` or `samples`, `y` is a tag of the log: a line for
    each run. `where` keeps the runs that have these values. `levels` are horizontal lines, each a value and a word.
    `name` names the PNG; a plot takes the place of a section of the report that has its name.
    """

    name: str
    title: str
    x: str
    y: str
    lines: str = ""
    panels: str = ""
    where: Mapping[str, Any] | None = None
    levels: Sequence[tuple[float, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Claims:
    """All claims of an experiment with its plots; `source` is the paper that they are from.

    `more` is kept as it is: what the writer wants to find again, as the cost or the machine.
    """

    title: str = ""
    source: str = ""
    claims: tuple[Claim, ...] = ()
    plots: tuple[Plot, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def write_claims(folder: Path, claims: Claims) -> Path:
    """Write `claims.json` into the folder of the sweep; numbers that are not finite become words."""
    path = folder / CLAIMS
    text = json.dumps(_plain(asdict(claims)), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def read_claims(folder: Path) -> Claims | None:
    """The claims beside the runs of a folder; None where it has none.

    Raises:
        ConfigError: the file is there, and is no such file.
    """
    path = folder / CLAIMS
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        claims = tuple(_typed(Claim, one) for one in tree.get("claims", []))
        plots = tuple(_typed(Plot, one) for one in tree.get("plots", []))
        return _typed(Claims, {**tree, "claims": claims, "plots": plots})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read as claims ({error}): write it with write_claims.") from error


def _typed(kind: Any, tree: Mapping[str, Any]) -> Any:
    """A claim or a plot from its JSON; an unknown or a missing key is a TypeError that names it."""
    known = {one.name for one in fields(kind)}
    if unknown := tree.keys() - known:
        raise TypeError(f"{kind.__name__} has no key {', '.join(sorted(unknown))}")
    return kind(**tree)


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return str(tree) if isinstance(tree, float) and not math.isfinite(tree) else tree
