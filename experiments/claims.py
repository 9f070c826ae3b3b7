"""What an experiment claims, as its YAML says it, and the judgement of what was measured.

A claim is an expression over arms with a threshold, as in `experiments/goyal.yaml`:

    - says: "batch 256: none / square root"
      value: train_loss('none 16') / train_loss('sqrt 16')
      at_least: 1.1

The names in an expression are the functions of `experiments.results.Results`, and abs, max and min; it may hold
numbers, texts, + - * / and brackets, and nothing else.
"""

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.lr import ConfigError

Kind = Literal["claim", "control", "note"]
KINDS = ("claim", "control", "note")
RELATIONS = ("at_most", "at_least", "between")
Functions = Mapping[str, Callable[..., Any]]

_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.USub: operator.neg,
}  # fmt: skip
_BUILTIN: Functions = {"abs": abs, "max": max, "min": min}


@dataclass(frozen=True)
class Verdict:
    """A number beside its threshold.

    A "claim" passes where it holds, a negative "control" where it does not; a "note" is told and decides nothing (what
    the source says, and this setting is known not to show). A number that is NaN passes nothing.
    """

    claim: str
    source: str
    measured: float
    threshold: str
    holds: bool
    kind: Kind = "claim"

    @property
    def passed(self) -> bool:
        """Whether this is as it should be."""
        if self.kind == "note":
            return True
        return not math.isnan(self.measured) and self.holds == (self.kind == "claim")

    @property
    def word(self) -> str:
        """The outcome in words, for a table."""
        if self.kind == "note":
            return "seen" if self.holds else "not reproduced"
        if self.kind == "control":
            return "fails, as it must" if self.passed else "HOLDS, BUT MUST NOT"
        return "pass" if self.passed else "FAIL"

    def row(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "claim": self.claim,
            "source": self.source,
            "measured": self.measured if math.isfinite(self.measured) else str(self.measured),
            "threshold": self.threshold,
            "pass": self.passed,
            "role": self.kind,
            "outcome": self.word,
        }


def at_most(claim: str, measured: float, threshold: float, source: str, kind: Kind = "claim") -> Verdict:
    """measured <= threshold."""
    return Verdict(claim, source, measured, f"<= {threshold:g}", measured <= threshold, kind)


def at_least(claim: str, measured: float, threshold: float, source: str, kind: Kind = "claim") -> Verdict:
    """measured >= threshold."""
    return Verdict(claim, source, measured, f">= {threshold:g}", measured >= threshold, kind)


def between(claim: str, measured: float, thresholds: Sequence[float], source: str, kind: Kind = "claim") -> Verdict:
    """low <= measured <= high."""
    low, high = thresholds
    return Verdict(claim, source, measured, f"{low:g} to {high:g}", low <= measured <= high, kind)


@dataclass(frozen=True)
class Claim:
    """A demand: `value` is an expression, `relation` and `threshold` what is asked of it."""

    says: str
    value: str
    relation: str
    threshold: Any
    source: str
    kind: Kind = "claim"

    def judged(self, functions: Functions) -> Verdict:
        """The demand beside what was measured."""
        judge = {"at_most": at_most, "at_least": at_least, "between": between}[self.relation]
        return judge(self.says, evaluated(self.value, functions), self.threshold, self.source, self.kind)


def claims_in(tree: Sequence[Mapping[str, Any]], source: str) -> Iterator[Claim]:
    """The claims of a YAML; an entry with `each` stands for its `claims` once for each of its mappings.

    Raises:
        ConfigError: an unknown or a missing key, or not exactly one threshold.
    """
    for entry in tree:
        if "each" in entry:
            for words in entry["each"]:
                filled = [{key: _filled(value, words) for key, value in one.items()} for one in entry["claims"]]
                yield from claims_in(filled, source)
            continue
        says = entry.get("says", "?")
        relations = [name for name in RELATIONS if name in entry]
        unknown = entry.keys() - {"says", "value", "source", "kind", *RELATIONS}
        if unknown or len(relations) != 1 or not {"says", "value"} <= entry.keys():
            raise ConfigError(
                f"claim {says!r}: give says, value, and one of {', '.join(RELATIONS)}; source and kind may follow"
                + (f", and {sorted(unknown)[0]} is not known." if unknown else ".")
            )
        kind = entry.get("kind", "claim")
        if kind not in KINDS:
            raise ConfigError(f"claim {says!r}: kind={kind} is not known: choose from {', '.join(KINDS)}.")
        yield Claim(says, entry["value"], relations[0], entry[relations[0]], entry.get("source", source), kind)


def evaluated(text: str, functions: Functions) -> float:
    """The value of an expression; NaN where it divides by zero.

    >>> evaluated("max(loss('a'), 2) / 4", {"loss": {"a": 3.0}.__getitem__})
    0.75

    Raises:
        ConfigError: it cannot be read, or holds what no expression may.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"{text!r} is no expression ({error.msg}): write it as train_loss('ARM') / 2.") from error
    try:
        return float(_value(tree, {**_BUILTIN, **functions}, text))
    except ZeroDivisionError:
        return math.nan


def with_values(text: str, functions: Functions) -> str:
    """The text with each `{EXPRESSION:FORMAT}` as its value.

    >>> with_values("it is {loss('a'):.2f}.", {"loss": {"a": 3.0}.__getitem__})
    'it is 3.00.'
    """
    return re.sub(r"\{([^{}]+):([^:{}]+)\}", lambda found: format(evaluated(found[1], functions), found[2]), text)


def _value(node: ast.expr, functions: Functions, text: str) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
        return node.value
    if isinstance(node, ast.BinOp | ast.UnaryOp) and type(node.op) in _OPERATORS:
        parts = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.operand]
        return _OPERATORS[type(node.op)](*(_value(part, functions, text) for part in parts))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        named = {word.arg: _value(word.value, functions, text) for word in node.keywords if word.arg}
        return functions[node.func.id](*(_value(one, functions, text) for one in node.args), **named)
    known = ", ".join(sorted(functions))
    raise ConfigError(f"{ast.unparse(node)} in {text!r} is not known: numbers, texts, + - * /, and calls of {known}.")


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
    """The value with each `{NAME}` of `words` in its place; numbers stay numbers."""
    if isinstance(value, list):
        return [_filled(one, words) for one in value]
    if not isinstance(value, str):
        return value
    if value[1:-1] in words and value == f"{{{value[1:-1]}}}":
        return words[value[1:-1]]
    return re.sub(r"\{(\w+)\}", lambda found: str(words.get(found[1], found[0])), value)
