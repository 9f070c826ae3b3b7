"""The page with the functions and classes for users, from their signatures and docstrings."""

import inspect
import re
from typing import Any

from trainer.tools.reference.docstrings import SECTIONS, escaped, named, parsed

SHOWN = {
    "From Python": ["cadence.plan", "cadence.fit", "cadence.load"],
    "A plan": [
        "cadence.RunPlan",
        "trainer.optim.policy_scheduler.PolicyScheduler",
        "trainer.engine.lr_control.LRControl",
    ],
    "A trained run": ["cadence.Run", "trainer.tools.trained.loading.History"],
    "For a step of your own": ["trainer.engine.step.StepOutput"],
    "For data of your own": [
        "data.module.DataModule",
        "data.module.Splits",
        "data.source.Memory",
        "data.source.Workers",
    ],
    "For a schedule or a rule of your own": [
        "trainer.lr.Horizon",
        "trainer.lr.annotate",
        "trainer.lr.scheduled",
        "trainer.lr.scaling.Scaled",
    ],
    "Errors": ["trainer.lr.ConfigError"],
}
MEMBERS = {
    "cadence.RunPlan": ["curve", "scheduler", "callback"],
    "cadence.Run": ["net", "updates", "config", "result", "history", "class_names", "data", "predict", "test", "export",
                    "other_data"],
    "data.module.DataModule": ["read", "shape", "after_split"],
    "trainer.optim.policy_scheduler.PolicyScheduler": [],
}  # fmt: skip
"""Of a class that has more, what a user calls or defines."""
HEAD = """# API

What a program of yours imports; [From Python](python.md) shows it at work. A config names any class or function by
`_target_`: those that come with Cadence are in the [reference of every config key](reference.md).

Made by `python scripts/reference.py` from docstrings; do not edit it by hand.
"""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [HEAD]
    for title, names in SHOWN.items():
        parts.append(f"## {title}\n")
        for name in names:
            documented = named(name)
            parts.append(f"### {name}\n")
            parts.append(_code(_signature(name.rpartition(".")[2], documented)))
            parts.append(_text(documented))
            for member in MEMBERS.get(name, []):
                parts.append(_member_text(documented, member))
    return "\n".join(parts)


def _member_text(owner: Any, name: str) -> str:
    found = inspect.getattr_static(owner, name)
    if inspect.isfunction(found):
        return f"#### {owner.__name__}.{name}\n\n{_code(_signature(name, found))}\n{_text(found)}"
    return f"#### {owner.__name__}.{name}\n\n{_text(found)}"


def _signature(name: str, documented: Any) -> str:
    """The signature, with one argument a line where it is long."""
    if inspect.isclass(documented) and issubclass(documented, Exception):
        return name
    signature = inspect.signature(documented)
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    given = [_parameter(one) for one in parameters]
    named = [one.kind is one.KEYWORD_ONLY for one in parameters]
    if True in named and not any(one.kind is one.VAR_POSITIONAL for one in parameters):
        given.insert(named.index(True), "*")
    result = signature.return_annotation
    end = "" if inspect.isclass(documented) or result is signature.empty else f" -> {_type(result)}"
    line = f"{name}({', '.join(given)}){end}"
    return line if len(line) <= 80 else "\n".join([f"{name}(", *(f"    {one}," for one in given), f"){end}"])


def _parameter(parameter: inspect.Parameter) -> str:
    """A parameter with its type and its default."""
    stars = "*" * (parameter.kind is parameter.VAR_POSITIONAL) + "**" * (parameter.kind is parameter.VAR_KEYWORD)
    text = stars + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_type(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = "..." if repr(parameter.default).startswith("<") else repr(parameter.default)
        text += f" = {default}" if ":" in text else f"={default}"
    return text


def _type(annotation: Any) -> str:
    """A type without the modules of its parts."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"(?:\w+\.)+(\w+)", r"\1", text)


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _text(documented: Any) -> str:
    """The docstring: its text, then a list for each section."""
    doc = parsed(documented.func if hasattr(documented, "func") else documented)
    parts = [_paragraphs(doc.text)]
    for title in SECTIONS:
        if entries := doc.sections.get(title):
            rows = [f"- `{name}`: {escaped(meaning)}" for name, meaning in entries.items()]
            parts.append(f"{title.replace('Args', 'Arguments')}:\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _paragraphs(text: str) -> str:
    """The paragraphs of a docstring; examples become blocks of code."""
    parts = []
    for part in text.split("\n\n"):
        part = part.strip("\n")
        if part.startswith(">>>"):
            parts.append(_code(part))
        elif part.startswith("    "):
            parts.append(part + "\n")
        else:
            parts.append(escaped(part) + "\n")
    return "\n".join(parts)
