"""Hydra sweeper `grid`, the default: every combination of the values, except for keys that are zipped.

`-m a=1,2 b=3,4 seed=0,1 hydra.sweeper.zip=[a,b]` runs (a, b) = (1, 3) and (2, 4), each with both seeds. The plugin also
makes `logspace` and `linspace` known to the overrides of any sweeper.
"""

import itertools
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf, read_write

from trainer.cli.dry_run import is_dry_run
from trainer.cli.hydra_internals import store_option
from trainer.lr import ConfigError
from trainer.sweep.resolvers import register_spacings
from trainer.sweep.sweep_resume import own_folder

register_spacings()


@dataclass
class GridSweeperConf:
    """The settings of `hydra.sweeper`.

    `zip`: keys whose values advance together, as [optimizer.lr,data.batch_size]; or a list of such lists. `params`:
    values for keys, as on the command line. `max_batch_size`: how many jobs a launcher is given at once, null for all.
    """

    _target_: str = "hydra_plugins.grid_sweeper.GridSweeper"
    zip: list[Any] = field(default_factory=list)
    max_batch_size: int | None = None
    params: dict[str, Any] | None = None


store_option("hydra/sweeper", "grid", GridSweeperConf)


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, with keys that may be zipped."""

    def __init__(self, zip: Any, max_batch_size: int | None, params: Any) -> None:
        if max_batch_size is not None and max_batch_size < 1:
            raise ConfigError(f"hydra.sweeper.max_batch_size={max_batch_size} must be at least 1, or null for all jobs")
        super().__init__(max_batch_size, params)
        self.zipped = _groups(OmegaConf.to_container(zip) if OmegaConf.is_config(zip) else zip)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep; its folder is locked before Hydra writes into it."""
        assert self.config is not None
        if is_dry_run():
            return self._dry_run(arguments)
        with own_folder(Path(str(self.config.hydra.sweep.dir)).resolve()):
            return super().sweep(arguments)

    def _dry_run(self, arguments: list[str]) -> Any:
        """The same without a folder: Hydra writes into one that is removed, and the jobs keep theirs."""
        own = self.config
        self.config = deepcopy(own)
        assert self.config is not None
        with tempfile.TemporaryDirectory() as place:
            with read_write(self.config.hydra.sweep):
                self.config.hydra.sweep.dir = place
            try:
                return super().sweep(arguments)
            finally:
                self.config = own

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing: Hydra would compose each job here, and the launcher does so again before the first job starts."""

    def split_arguments(  # type: ignore[override]
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The overrides of each job, in batches; the last key varies fastest."""
        axes: dict[str, list[list[str]]] = {}
        for override in overrides:
            key = override.get_key_element()
            if override.is_interval_sweep():
                raise ConfigError(
                    f"{override.input_line}: a grid takes single values: give {key}=logspace(…) or linspace(…), "
                    "or search the interval with hydra/sweeper=search"
                )
            swept = override.is_sweep_override()
            values = [*override.sweep_string_iterator()] if swept else [override.get_value_element_as_str()]
            axes[key] = [[f"{key}={value}" if override.input_line != key else key] for value in values]
        for group in self.zipped:
            _zip(axes, group)
        jobs = [list(itertools.chain(*parts)) for parts in itertools.product(*axes.values())]
        size = max_batch_size or len(jobs)
        return [jobs[at : at + size] for at in range(0, len(jobs), size)]


def _groups(given: Any) -> list[list[str]]:
    advice = "give keys, as in hydra.sweeper.zip=[optimizer.lr,data.batch_size], or a list of such lists"
    groups = given if any(isinstance(item, list) for item in given) else [given] if given else []
    for group in groups:
        if not isinstance(group, list) or not all(isinstance(key, str) for key in group) or len(set(group)) < 2:
            raise ConfigError(f"hydra.sweeper.zip={given}: {group} does not name two keys or more: {advice}")
    keys = list(itertools.chain(*groups))
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ConfigError(f"hydra.sweeper.zip={given} names {twice[0]} twice: {advice}")
    return groups


def _zip(axes: dict[str, list[list[str]]], group: Sequence[str]) -> None:
    """Join the axes of these keys into one, at the place of the first."""
    by_name = {key.lstrip("+~"): key for key in axes}
    if missing := [name for name in group if name not in by_name]:
        raise ConfigError(
            f"hydra.sweeper.zip names {missing[0]}, which this command gives no values: give it as many as the others"
        )
    keys = [by_name[name] for name in group]
    lengths = {name: len(axes[key]) for name, key in zip(group, keys)}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ConfigError(f"hydra.sweeper.zip: {counts} values: keys that advance together need the same number")
    axes[keys[0]] = [list(itertools.chain(*parts)) for parts in zip(*(axes[key] for key in keys))]
    for key in keys[1:]:
        del axes[key]
