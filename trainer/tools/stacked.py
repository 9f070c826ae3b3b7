"""Trains runs of the same shapes as one: each has its own seed, rates, log and result, and equals its lone run.

The loss agrees with that of the lone run to 1e-6, where training is stable: sums are added in another order.
"""

import math
import re
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from trainer.config.components import Parts
from trainer.engine.guard import Diverged, check_finite
from trainer.engine.run_hooks import RunHooks
from trainer.engine.stacked import StackedNets, clipped, why_not_stacked
from trainer.engine.stacked_optimizers import RULES, state_of, why_no_rule
from trainer.engine.step import PairStep
from trainer.lr.growth import STEADY
from trainer.lr.guard import Stop

FREE = "name seed optimizer schedule warmup cooldown scaling warmup_mode group_schedule compat lint resume".split()
"""Parts of the config in which the runs of a stack may differ."""
LARGEST = 100_000
"""Nets with more weights fill a processor alone, and gain nothing in a stack: benchmarks/stacked.py."""
Kept = tuple[Tensor, dict[str, Tensor]]
"""The weights of a group, (K, P), and the states of its optimizer."""
NOT_BATCHED = re.compile(r"batching rule for ([\w:]+)")
"""What torch says of an operation that it would call for one net after another."""
LOOK = 50
"""Updates between two looks at whether all runs have broken."""


@dataclass
class Applied:
    """What an update has applied, for the log: no setting but the rates is scheduled."""

    applied: list[float]
    place: tuple[int | list[int], float]
    values: dict[str, list[float]] = field(default_factory=dict)
    plateau: float = 1.0
    backoff: float = 1.0


class Stack:
    """Runs that train as one; `parts` are built, and none has been trained."""

    def __init__(self, parts: Sequence[Parts]) -> None:
        self.parts, self.first = parts, parts[0]
        for one in parts:
            one.module.trainer = one.data.trainer = one.trainer
            one.trainer.precision_plugin.convert_module(one.module).to(one.trainer.strategy.root_device)
        optimizers = [one.module.spec.optimizer() for one in parts]
        groups = self.first.module.spec.groups
        by_id = {id(parameter): name for name, parameter in self.first.module.net.named_parameters()}
        names = [[by_id[id(parameter)] for parameter in group.parameters] for group in groups]
        self.nets = StackedNets([one.module.net for one in parts], names, self.first.module.step)
        rule = RULES[type(optimizers[0])]
        settings = zip(*(one.param_groups for one in optimizers))
        self.rules = [rule(one, weights) for one, weights in zip(settings, self.nets.weights)]
        self.rates = _rates(parts, self.nets.weights[0])
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.times: list[float] = []
        self.kept: dict[int, list[Kept]] = {}

    def fit(self) -> list[Diverged | None]:
        """Train all runs to their end; the failure of each, or None. The nets then have the trained weights.

        Raises UserWarning where an operation is not batched: torch would run it for one net after another.
        """
        begun = time.time()
        self.train()
        self.nets.write_back()
        for one in self.parts:
            one.module.metric_buffer.since = begun
        return self._logged()

    def train(self, keep: Collection[int] = ()) -> None:
        """Make the updates of all runs, as long as one is left that has not broken; the nets of the runs stay.

        `keep`: numbers of updates after which weights and states of the optimizers are kept, for `load`.
        Raises UserWarning as `fit` does.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="There is a performance drop")
            try:
                self._train(keep)
            except UserWarning as warning:
                if found := NOT_BATCHED.search(str(warning)):
                    raise UserWarning(f"torch.func does not batch {found[1]}") from None
                raise

    def _train(self, keep: Collection[int]) -> None:
        for one in self.parts:
            one.module.net.train()
        total, limit = self.first.module.horizon.total, self.first.module.spec.gradients.clip
        batches, shared = _batches(self.parts)
        convert = self.first.trainer.precision_plugin.convert_input
        for t in range(total):
            losses, gradients = self.nets.gradients(convert(next(batches)), shared, t)
            self.norms.append(clipped(gradients, limit))
            self.losses.append(losses)
            with torch.no_grad():
                for i, (rule, weights) in enumerate(zip(self.rules, self.nets.weights)):
                    rule(weights, gradients[i], self.rates[t, i])
            self.times.append(time.time())
            if t + 1 in keep:
                self.kept[t + 1] = [
                    (weights.clone(), {name: state.clone() for name, state in rule.states().items()})
                    for weights, rule in zip(self.nets.weights, self.rules)
                ]
            if t % LOOK == 0 and not (losses.isfinite() & self.norms[-1].isfinite()).any():
                break

    def broke(self) -> list[bool]:
        """Whether each run has had a loss or a gradient that is not finite."""
        losses, norms = torch.stack(self.losses), torch.stack(self.norms)
        finite: list[bool] = (losses.isfinite() & norms.isfinite()).all(0).tolist()
        return [not one for one in finite]

    @torch.no_grad()
    def load(self, i: int, t: int, optimizer: Optimizer) -> None:
        """Put what was kept of run `i` after `t` updates into its net and its optimizer."""
        own = dict(self.parts[i].module.net.named_parameters())
        for names, (weights, states), group in zip(self.nets.names, self.kept[t], optimizer.param_groups):
            at = 0
            for name in names:
                parameter = own[name]
                here = slice(at, at := at + parameter.numel())
                parameter.copy_(weights[i, here].view_as(parameter))
                rows = {key: state[i, here].view_as(parameter).clone() for key, state in states.items()}
                optimizer.state[parameter] = state_of(group, rows, t, parameter)

    def _logged(self) -> list[Diverged | None]:
        """Log the updates of each run, up to the one that broke it."""
        losses, norms = (torch.stack(one).T for one in (self.losses, self.norms))
        return [self._log(one, *rows) for one, *rows in zip(self.parts, losses, norms)]

    def _log(self, parts: Parts, losses: Tensor, norms: Tensor) -> Diverged | None:
        module = parts.module
        finite = (losses.isfinite() & norms.isfinite()).tolist()
        made = finite.index(False) if False in finite else len(finite)
        rows = zip(losses[:made].unbind(), norms[:made].unbind(), _curve(parts, made))
        for t, (loss, norm, rates) in enumerate(rows):
            module.metric_buffer.add(t, loss, norm, Applied(rates, (t, 1.0)))
        module.clock.t = made
        module.flush()
        if made == len(finite):
            return None
        try:
            check_finite(made, norms[made].item(), losses[made].item())
        except Diverged as error:
            return error
        return None


def score(parts: Parts) -> None:
    """Score the validation data as the run does at its end, and note the scores as the best."""
    module, checkpointing = parts.module, parts.checkpointing
    loader = parts.data.val_dataloader()
    if not len(loader) or not module.hooks.scored("val"):
        return
    module.net.eval()
    scores: Any = module.scores["val"]
    precision = parts.trainer.precision_plugin
    with torch.no_grad(), precision.forward_context():
        for i, batch in enumerate(map(precision.convert_input, loader)):
            scores.update(module.hooks.score("val", batch, i, module.run_step), batch)
    values = {f"val/{name}": value for name, value in scores.compute().items()}
    value, arrays = values.get(checkpointing.monitor), {f"val/{name}": one for name, one in scores.arrays.items()}
    for logger in parts.trainer.loggers:
        logger.log_metrics(values, max(module.clock.t - 1, 0))
    if value is not None and math.isfinite(value):
        checkpointing.best.update(value=value, update=module.clock.t, scores=values, arrays=arrays)


def why_alone(parts: Sequence[Parts]) -> str:
    """Why these runs are not trained as one; empty where they may be."""
    if (size := sum(weight.numel() for weight in parts[0].module.net.parameters())) > LARGEST:
        return f"a net has {size:,} weights, more than {LARGEST:,}"
    for one in parts:
        module, settings = one.module, one.resolved.settings
        spec, run = module.spec, settings.trainer
        checks = {
            "there are several processes": run.world > 1,
            f"trainer.precision={run.precision}": run.precision not in ("32-true", "64-true"),
            "trainer.accumulate is above 1": spec.accumulate > 1,
            "a setting follows a schedule": bool(spec.policy.hyper_schedules),
            "the batch grows": spec.horizon.growth != STEADY,
            "scaling=adascale": spec.policy.most_gain is not None,
            "plateau lowers the rate": bool(settings.plateau),
            "weights are averaged": spec.average.keep is not None,
            "updates are measured": bool(settings.measure),
            "gradients are treated by more than trainer.clip": _treats(one),
            "the step is not the loss of pairs": not isinstance(module.step, PairStep)
            or type(module.hooks) is not RunHooks,
            "trainer.compile=true": bool(settings.record["trainer"].get("compile")),
            "trainer.cuda_graph=true": spec.cuda_graph,
            "guard is not stop": type(spec.guard) is not Stop,
            "the data is streamed": not hasattr(one.data.splits.train, "batches"),
            "the runs differ in more than numbers of the optimizer and its curve": _fixed(one) != _fixed(parts[0]),
            "the runs differ in length": module.horizon.total != parts[0].module.horizon.total,
        }
        if found := next((why for why, holds in checks.items() if holds), ""):
            return found
    return why_not_stacked([one.module.net for one in parts]) or why_no_rule(
        [one.module.spec.optimizer() for one in parts]
    )


def _treats(parts: Parts) -> bool:
    """Whether more is done to the gradients than clipping all of them together."""
    given = {name for name, value in parts.module.spec.gradients.settings().items() if value is not None}
    return bool(given - {"clip"}) or any(group.clip is not None for group in parts.module.spec.groups)


def _fixed(parts: Parts) -> dict[str, Any]:
    """The settings that all runs of a stack share: all but the seed, and the numbers of the optimizer and its curve."""
    record = parts.resolved.settings.record
    fixed = {key: value for key, value in record.items() if key not in FREE}
    return {**fixed, "data": {key: value for key, value in record["data"].items() if key != "seed"}}


def _rates(parts: Sequence[Parts], like: Tensor) -> Tensor:
    """The rates of every update, group and run, (T, G, K, 1)."""
    total = parts[0].module.horizon.total
    rows = [_curve(one, total) for one in parts]
    return torch.tensor(rows, dtype=torch.float64, device=like.device).permute(1, 2, 0)[..., None].to(like.dtype)


def _curve(parts: Parts, updates: int) -> list[list[float]]:
    """The rates of the first updates, for all groups."""
    return [parts.module.spec.policy.lrs(t) for t in range(updates)]


def _batches(parts: Sequence[Parts]) -> tuple[Iterator[Any], bool]:
    """The batch of each update, and whether all runs share it; else their batches are stacked."""
    by_order: dict[int, Callable[[], Iterator[Any]]] = {}
    places = []
    for one in parts:
        places.append(list(by_order).index(one.data.seed) if one.data.seed in by_order else len(by_order))
        by_order.setdefault(one.data.seed, partial(_stream, one))
    streams = [make() for make in by_order.values()]
    if len(streams) == 1:
        return streams[0], True
    return _stacked(streams, torch.tensor(places)), False


def _stream(parts: Parts) -> Iterator[Any]:
    """The batches of a run, update by update."""
    while True:
        for chunk in parts.data.train_dataloader():
            for update in chunk:
                (micro,) = update
                yield micro.batch
                parts.module.clock.t += 1


def _stacked(streams: Sequence[Iterator[Any]], places: Tensor) -> Iterator[Any]:
    while True:
        batches = [next(stream) for stream in streams]
        yield pytree.tree_map(lambda *rows: torch.stack(rows)[places.to(rows[0].device)], *batches)
