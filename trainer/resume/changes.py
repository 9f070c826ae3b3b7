"""What differs between the config of a checkpoint and the present one."""

import sys
from collections.abc import Mapping
from typing import Any

from trainer.cli.streams import shown

Changes = dict[str, tuple[Any, Any]]


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config as one level of dotted keys."""
    if isinstance(tree, dict) and tree:
        return {k: v for key, sub in tree.items() for k, v in flat(sub, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): tree}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Changes:
    """The dotted keys whose values differ: (before, now), None where a key is missing."""
    old, new = flat(before), flat(now)
    changed = {key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys())}
    return {key: pair for key, pair in changed.items() if pair[0] != pair[1] and {} not in pair}


def print_changes(update: int, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """One line for each key of the config that differs from the checkpoint's: it holds from `update` on."""
    for key, (old, new) in differences(before, now).items():
        if key.startswith("init."):
            why = "the weights come from the checkpoint"
            print(shown(f"resumed at update {update}: {key}={new} (before: {old}) is not read, {why}"), file=sys.stderr)
        elif (
            key != "name" and not key.startswith(("resume.", "callbacks.progress.")) and not key.endswith("._partial_")
        ):
            print(shown(f"resumed at update {update}, from there on {key}: {old} → {new}"), file=sys.stderr)
