"""The steps of a range test: sweeps, suggestions, cycles, short trainings, files."""

import json
import math
import platform
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from trainer.config.components import Parts, build
from trainer.config.resolve import resolve
from trainer.config.settings import Settings
from trainer.lr import ConfigError
from trainer.lr.range_rules import OURS, Suggestion, edges, suggestions
from trainer.lr.range_test import Edge, Sweep, rates
from trainer.tools.range_test import output
from trainer.tools.range_test.confirm import confirm
from trainer.tools.range_test.readings import cycle_bounds, median_bounds, upper_bound
from trainer.tools.range_test.rectified import as_in_the_run
from trainer.tools.range_test.sweep import fingerprint, scored_by, sweep
from trainer.tools.writable import save_numbers

REMEDIES = {"end": (1.0, 100.0, 1), "start": (1e-4, 1.0, 1), "updates": (1.0, 1.0, 3)}
"""What is tried where a curve tells nothing: factors of the first rate, of the last rate, and of the updates."""
TRIES = 2
AROUND = (0.01, 30.0)
"""The ends of the sweeps around a rate that is located, as its multiples."""
LOSSES = {"train": "loss of each batch", "val": "loss of fixed validation samples"}
Made = Callable[[list[str], int, bool], Settings]


class RangeTest:
    """Sweeps a run with several seeds, and applies the rules to the sweeps."""

    def __init__(self, options: Namespace, values: Sequence[float], first: int, made: Made) -> None:
        """`first` is the first seed, and `made` gives the settings of overrides and a seed, with or without scoring."""
        self.options, self.values, self.first, self.made = options, values, first, made
        self.wide: list[Sweep] = []
        self.sweeps: list[Sweep] = []
        self.scores: list[Sweep] = []
        self.edges: dict[int, Edge] = {}
        self.suggestions: dict[str, Suggestion] = {}
        self.states: list[str] = []
        self.results: dict[str, Any] = {}
        self.notes: list[str] = []
        self.updates = 0
        with tempfile.TemporaryDirectory() as folder:
            base = self._parts(first, Path(folder))
        self.score, self.sign = scored_by(base)
        self.loss = options.loss or ("val" if hasattr(base.data.splits.val, "batches") else "train")
        resolved = base.resolved
        self.groups, self.policy, self.length = resolved.settings.curve.groups, resolved.plan.policy, resolved.horizon
        if options.confirm is not None:
            self.length.updates(options.confirm, "--confirm", least=1)  # refused before anything is trained

    def format_heading(self) -> list[str]:
        """The lines that say what will be measured."""
        one, last = self.values[0], self.values[-1]
        scale, sweeps = self.policy.scale, "1 sweep" if self.options.seeds == 1 else f"{self.options.seeds} sweeps"
        located = self.options.of == "lr" and self._located
        around = f", to locate; then {sweeps} from {AROUND[0]:g} to {AROUND[1]:g} times what it finds"
        return [
            f"{'1 sweep' if located else sweeps} of {len(self.values)} updates of {self.length.batch_size:,} samples: "
            f"{self.options.of} from {one:.3g} to {last:.3g}, {self.options.spacing}, by the {LOSSES[self.loss]}"
            f"{around * located}",
            f"scale of the batch-size rule: {scale:.4g}, so peak = optimizer.lr × {scale:.4g}",
            "",
        ]

    def make_sweeps(self) -> None:
        """Sweep with each seed, and apply the rules.

        A rate is located by one sweep over all rates; those of the seeds then go around it, more slowly. If they cannot
        tell, what the first one says counts.
        """
        options = self.options
        if options.of != "lr":
            self._sweep_seeds(options.seeds)
            return
        if not self._located:
            self._read(options.seeds, 0)
            return
        self.locate()
        if (found := self.suggestions[OURS].value) is None:
            return
        self.wide, wide = self.sweeps, (self.sweeps, self.suggestions, self.edges)
        self.values = rates(found * AROUND[0], found * AROUND[1], len(self.values))
        self._read(options.seeds, TRIES)
        if refused := self.suggestions[OURS].refused:
            self.notes.append(f"Slower sweeps around {found:.3g} do not tell ({refused}), so the first one counts.")
            self.sweeps, self.suggestions, self.edges = wide

    def locate(self) -> None:
        """One sweep over all rates, with the first seed."""
        self._read(1, TRIES if self._located else 0)

    @property
    def _located(self) -> bool:
        """Whether the rates to sweep are found, because none are given."""
        options = self.options
        return (options.start, options.end, options.spacing) == (None, None, "exponential")

    def _read(self, seeds: int, tries: int) -> None:
        """Sweep, and apply the rules; where these cannot read the curve, try what may help, so many times."""
        for left in reversed(range(tries + 1)):
            self._sweep_seeds(seeds)
            self.suggestions = suggestions(self.sweeps)
            if not left or not (remedy := self.suggestions[OURS].remedy):
                return
            low, high, more = REMEDIES[remedy]
            self.notes.append(f"{self.suggestions[OURS].refused} Tried by itself: --{remedy}.")
            spacing = self.options.spacing
            self.values = rates(self.values[0] * low, self.values[-1] * high, len(self.values) * more, spacing)

    def _sweep_seeds(self, count: int) -> None:
        self.sweeps = []
        for i in range(count):
            self._show(f"sweep {i + 1} of {count}")
            self.sweeps.append(self._sweep(self.first + i, self.options.of, self.values, self.loss))
            self.updates += len(self.sweeps[-1].losses)
        self._show("")
        self.edges, _ = edges(self.sweeps)

    def run_sweeps(self) -> list[str]:
        """Sweep with each seed. Returns the lines that say what was found."""
        options = self.options
        self.make_sweeps()
        lines = [
            *self.notes,
            *output.format_dead(self.sweeps),
            *output.format_sweeps(self.sweeps, self.edges, options.of),
            "",
        ]
        if options.of != "lr":
            self.results["bound"] = upper_bound(self.sweeps, options.of)
            lines += output.format_bound(self.results["bound"], options.of)
        else:
            lines += [*output.format_suggestions(self.suggestions, options.of), ""]
            ours = self.suggestions[OURS]
            if ours.value is None:
                print("\n".join(lines))
                raise ConfigError(f"no suggestion: {ours.refused} Or take cadence tune, which trains.")
            lines += output.format_overrides(ours, self.overrides_for(ours.value))
        return [*lines, f"state: sha256 {self.states[0][:16]}… before and after each sweep"]

    def find_cycles(self) -> list[str]:
        """A linear rise to twice the edge, by the score: base and highest for cycles."""
        options = self.options
        top = 2.0 * upper_bound(self.sweeps, "lr")
        values = rates(top / options.cyclic_updates, top, options.cyclic_updates, "linear")
        self.scores = [self._sweep(self.first + i, "lr", values, "score") for i in range(options.seeds)]
        found = median_bounds([cycle_bounds(one) for one in self.scores])
        words = [
            "schedule=triangular",
            f"schedule.floor={found.base / found.highest:.4g}",
            *self.overrides_for(found.highest),
        ]
        self.results["cyclic"] = {**asdict(found), "override": words}
        return output.format_cycles(found, options.seeds, self.score, self.sign, words)

    def run_confirmation(self) -> list[str]:
        """Three short trainings in the bracket."""
        options, value = self.options, self.suggestions[OURS].value
        assert value is not None

        def made(seed: int, words: list[str]) -> Settings:
            return self.made([*options.overrides, *words], seed, False)

        found = confirm(made, options.confirm_seeds, self.first, value, self.policy.scale, options.confirm)
        self.results["confirmed"] = found.as_dict()
        return output.format_confirmation(found, self.overrides_for(found.winner.rate))

    def overrides_for(self, value: float) -> list[str]:
        """The overrides that give this peak, which is optimizer.lr times the factor of the batch-size rule."""
        words = [f"optimizer.lr={value / self.policy.scale:.6g}"]
        own = (self.groups.get("optimizer") or {}).get("lr")
        if own is not None:
            words.append(f"groups.optimizer.lr={own * value / self.policy.peak_lr:.6g}")
        return words

    def save(self) -> str:
        """Write the picture and the numbers. Returns their paths, to print."""
        options = self.options
        name = "learning rate at the peak" if options.of == "lr" else options.of
        loss = "training loss of the batch" if self.loss == "train" else "validation loss"
        figure = output.draw(self.sweeps, self.edges, self.suggestions, name, loss)
        ours = self.suggestions.get(OURS)
        numbers = {
            "overrides": options.overrides,
            "options": self._recorded_options(),
            "loss": self.loss,
            "notes": self.notes,
            "scale": self.policy.scale,
            "located": [asdict(one) for one in self.wide],
            "sweeps": [asdict(one) for one in self.sweeps],
            "edges": {seed: asdict(one) for seed, one in self.edges.items()},
            "suggestions": [asdict(one) for one in self.suggestions.values()],
            "override": self.overrides_for(ours.value) if ours and ours.value else None,
            "scores": [asdict(one) for one in self.scores],
            **self.results,
            "state": self.states,
            "machine": {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()},
        }
        return save_numbers(options.out, json.dumps(finite(numbers), indent=1, allow_nan=False), figure)

    def _recorded_options(self) -> dict[str, Any]:
        """The options of the command, with paths as text."""
        options = {name: value for name, value in vars(self.options).items() if name not in ("overrides", "out")}
        return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}

    def _sweep(self, seed: int, of: str, values: Sequence[float], measured: str) -> Sweep:
        """The sweep of a seed, in a run of its own. Raises RuntimeError where it has changed that run."""
        with tempfile.TemporaryDirectory() as folder:
            parts = self._parts(seed, Path(folder))
            before = fingerprint(parts)
            made = sweep(parts, of, values, measured, self.options.val_samples)
            if (after := fingerprint(parts)) != before:
                raise RuntimeError(f"the sweep of seed {seed} has changed the run: sha256 {before} became {after}.")
        self.states.append(before)
        return as_in_the_run(made, parts.resolved) if of == "lr" else made

    def _parts(self, seed: int, folder: Path) -> Parts:
        parts = build(resolve(self.made(self.options.overrides, seed, True)), folder)
        parts.trainer.callbacks.remove(parts.checkpointing)  # type: ignore[attr-defined]
        parts.trainer.precision_plugin.convert_module(parts.module)  # now: a sweep leaves it as it was
        return parts

    def _show(self, text: str) -> None:
        """Progress on a terminal."""
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def finite(tree: Any) -> Any:
    """The same tree, with None for each number that is not finite, which JSON cannot hold."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
