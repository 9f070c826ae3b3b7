"""Claims as the YAML of an experiment states them, and their judgement by what was measured.

A claim is an expression over arms with a threshold, as in `experiments/goyal.yaml`:

    - says: "batch 256: none / square root"
      value: train_loss('none 256') / train_loss('sqrt 256')
      at_least: 1.1

An expression may hold numbers, texts, + - * /, brackets, abs, max and min, and the functions of
`experiments.results.Results`, and nothing else.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainer.lr import ConfigError
from trainer.tools.report.claims import Claim

RELATIONS: dict[str, Callable[[float, Any], bool]] = {
    "at_most": operator.le,
    "at_least": operator.ge,
    "between": lambda value, ends: ends[0] <= value <= ends[1],
}
WORDS = {
    "claim": {True: "pass", False: "FAIL"},
    "control": {True: "HOLDS, BUT MUST NOT", False: "fails, as it must"},
    "note": {True: "seen", False: "not reproduced"},
}
"""The outcome of each kind of claim, where it holds and where it does not."""
Functions = Mapping[str, Callable[..., Any]]

_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.USub: operator.neg,
}  # fmt: skip
_BUILTIN: Functions = {"abs": abs, "max": max, "min": min}


def judged(
    says: str, measured: float, relation: str, threshold: Any, source: str = "", *, kind: str = "claim"
) -> Claim:
    """A number beside its threshold: `relation` is at_most, at_least or between, which takes a pair.

    A "claim" must hold, a "control" must not, and a "note" decides nothing: it is a statement of the source that this
    setting is known not to show. NaN never passes: a claim fails, and a control counts as if it held.
    """
    holds = kind == "control" if math.isnan(measured) else bool(RELATIONS[relation](measured, threshold))
    shown = " to ".join(f"{end:g}" for end in threshold) if relation == "between" else threshold
    return Claim(
        text=says, measured=measured, relation=relation.replace("_", " "), threshold=shown, holds=holds, source=source,
        kind=kind, outcome=WORDS[kind][holds],
    )  # fmt: skip


def judged_all(tree: Sequence[Mapping[str, Any]], source: str, functions: Functions) -> list[Claim]:
    """The claims of a YAML beside what was measured."""
    found = []
    for one in flat(tree):
        relation, measured = next(name for name in RELATIONS if name in one), evaluated(one["value"], functions)
        claim_source, kind = one.get("source", source), one.get("kind", "claim")
        found.append(judged(one["says"], measured, relation, one[relation], claim_source, kind=kind))
    return found


def flat(tree: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The claims of a YAML, checked; an entry with `each` stands for its `claims` once for each of its mappings.

    Raises:
        ConfigError: an unknown or a missing key, or not exactly one threshold.
    """
    for entry in tree:
        if "each" in entry:
            for words in entry["each"]:
                yield from flat([{key: _filled(value, words) for key, value in one.items()} for one in entry["claims"]])
            continue
        if unknown := sorted(entry.keys() - {"says", "value", "source", "kind", *RELATIONS}):
            raise ConfigError(f"claim {entry.get('says')!r}: {unknown[0]} is not known.")
        if not {"says", "value"} <= entry.keys() or len(entry.keys() & RELATIONS.keys()) != 1:
            raise ConfigError(f"claim {entry.get('says')!r}: give says, value, and one of {', '.join(RELATIONS)}.")
        if entry.get("kind", "claim") not in WORDS:
            raise ConfigError(f"claim {entry['says']!r}: kind={entry['kind']}: choose from {', '.join(WORDS)}.")
        yield entry


def evaluated(text: str, functions: Functions) -> float:
    """The value of an expression; NaN where it divides by zero.

    >>> evaluated("max(loss('a'), 2) / 4", {"loss": {"a": 3.0}.__getitem__})
    0.75

    Raises:
        ConfigError: it cannot be parsed, or holds anything else than an expression may.
    """
    try:
        return float(_value(ast.parse(text.strip(), mode="eval").body, {**_BUILTIN, **functions}))
    except ZeroDivisionError:
        return math.nan
    except (SyntaxError, TypeError) as error:
        raise ConfigError(f"{text!r} has no value ({error}): write it as train_loss('ARM') / 2.") from error


def with_values(text: str, functions: Functions) -> str:
    """The text with each `{EXPRESSION:FORMAT}` as its value.

    >>> with_values("it is {loss('a'):.2f}.", {"loss": {"a": 3.0}.__getitem__})
    'it is 3.00.'
    """
    return re.sub(r"\{([^{}]+):([^:{}]+)\}", lambda found: format(evaluated(found[1], functions), found[2]), text)


def _value(node: ast.expr, functions: Functions) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        return node.value
    if isinstance(node, ast.BinOp | ast.UnaryOp) and type(node.op) in _OPERATORS:
        parts = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.operand]
        return _OPERATORS[type(node.op)](*(_value(part, functions) for part in parts))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        named = {word.arg: _value(word.value, functions) for word in node.keywords if word.arg}
        return functions[node.func.id](*(_value(one, functions) for one in node.args), **named)
    raise ConfigError(f"{ast.unparse(node)} is not known in an expression: call {', '.join(sorted(functions))}.")


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
    """The value with each `{NAME}` of `words` in its place."""
    if not isinstance(value, str):
        return value
    return re.sub(r"\{(\w+)\}", lambda found: str(words.get(found[1], found[0])), value)
