"""From checked settings to everything that decides the learning rate: length, scaled numbers, groups, plan.

It is done once, and later code takes these values. A plan alone needs neither torch nor data, unless its groups follow
from the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trainer.config.adascale_config import counted_batch, in_own_updates, largest_gain
from trainer.config.batch_scaling import ScaledNumbers, scaled_numbers
from trainer.config.batch_schedule import with_growing_batch
from trainer.config.instantiate import refusing
from trainer.config.lr_policy import Groups, assumed_groups, group_settings, lr_policy
from trainer.config.settings import CurveSettings, Settings, declared_samples
from trainer.lr import ConfigError, Horizon, LRPolicy, Plan
from trainer.lr.bounds import integer
from trainer.resume.curve_history import Segment, curve_history, edits, first_segment
from trainer.resume.resumed_curve import resumed_curve

if TYPE_CHECKING:
    from torch import nn

    from trainer.config.model_data import Model
    from trainer.resume.resume_point import ResumePoint, Start

PLAIN = "trainer.optim.groups.decay_groups"
"""The groups that follow from the weight decay alone."""
MODULE = "trainer.config.module_optimizer.module_optimizer"
"""The optimizer of a LightningModule, whose numbers only the net tells."""
LONGEST = 10**8
"""The most updates of a run: the plan keeps each one's learning rate in memory."""


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made of."""

    curve: CurveSettings
    numbers: ScaledNumbers
    groups: Groups
    history: Sequence[Segment]
    plan: Plan


@dataclass(frozen=True)
class Resolved:
    """A run of which only the data and the model are built.

    `numbers` are the hyper-parameters scaled by the batch-size rule. `plan` counts the updates of the curve, `horizon`
    those of the run; they differ under AdaScale. `history` are the segments of the curve; `changed` says whether this
    resume has added the last one. A resumed run continues from `checkpoint` at `start`.
    """

    settings: Settings
    numbers: ScaledNumbers
    groups: Groups
    plan: Plan
    horizon: Horizon
    history: Sequence[Segment]
    data: Any
    model: "Model"
    checkpoint: "ResumePoint | None" = None
    start: "Start | None" = None
    changed: bool = False

    @property
    def edits(self) -> list[dict[str, Any]]:
        """What resumes have changed beside the curve."""
        if self.checkpoint is None or self.start is None:
            return []
        return edits(self.start.updates, self.checkpoint.saved, self.settings.record)


def resolve(settings: Settings, checkpoint: "ResumePoint | None" = None) -> Resolved:
    """Everything that decides a run, resumed from `checkpoint` if one is given. Nothing is trained yet.

    Raises `ConfigError` for invalid values, and for a checkpoint that does not fit.
    """
    from trainer.config.model_data import build_net, facts_of, prepare, read_data
    from trainer.config.module_optimizer import model_of, with_module_numbers
    from trainer.config.prepared_net import prepared_net
    from trainer.config.sharding import check_sharded  # late: these need torch

    prepare(settings.trainer, settings.seed)
    declared = horizon_of(settings) if declared_samples(settings.data, settings.allow) is not None else None
    data = read_data(settings)
    length = declared or horizon_of(settings, data.train_samples)
    own = in_own_updates(settings, length, data.train_samples)
    read = checkpoint is None or bool(settings.adapter)
    net, origin = prepared_net(build_net(settings, data.shape), settings, read)
    settings = with_module_numbers(settings, net, own)
    early: Planned | None = settings.planned
    if early and (early.curve, early.numbers.length) != (settings.curve, length):
        early = None
    numbers = early.numbers if early else scaled_numbers(settings.curve, length)
    model = replace(model_of(settings, numbers, net), origin=origin)
    check_sharded(settings, net, model.optimizer())
    history, changed = _history(settings, length, own, model, checkpoint)
    groups = facts_of(model.groups)
    same = early and (early.groups, early.history) == (groups, history)
    plan = early.plan if early and same else _plan(Curves(settings, numbers, groups), history)
    horizon = in_own_updates(settings, plan.horizon, data.train_samples)
    start = None if checkpoint is None else _start(checkpoint, horizon)
    with refusing("data"):
        data.check_run(settings.trainer.world, None if checkpoint is None else checkpoint.content)
    return Resolved(settings, numbers, groups, plan, horizon, history, data, model, checkpoint, start, changed)


def policy_of_longer(resolved: Resolved) -> str | None:
    """The policy by which the completed run can go on to twice its length: stretch or rewarm, None where none can."""
    settings, length, history = resolved.settings, resolved.numbers.length, list(resolved.history)
    saved = {"curve_history": history, "updates": length.total, "batch_size": length.batch_size}
    curves = Curves(settings, resolved.numbers, resolved.groups)
    for rule in ("stretch", "rewarm"):
        resume = replace(settings.resume, policy=rule, snapshot=None)
        try:
            longer = curve_history(settings.record, resume, replace(length, total=2 * length.total), saved)
            resumed_curve(longer, settings.record, curves)
        except ConfigError:
            continue
        return rule
    return None


def plan_of(settings: Settings, groups: Groups | None = None, history: Sequence[Segment] = ()) -> Plan:
    """The plan of a run. `groups` and `history` are those of the run where it has been started before."""
    return planned(settings, groups, history).plan


def planned(settings: Settings, groups: Groups | None = None, history: Sequence[Segment] = ()) -> Planned:
    """The same with what it is made of.

    Where groups follow from the model and are not given, the data is read and the net built.
    """
    length = horizon_of(settings)
    net = None
    if settings.curve.optimizer.get("_target_") == MODULE:
        from trainer.config.model_data import build_net, read_data  # late: these need torch
        from trainer.config.module_optimizer import with_module_numbers
        from trainer.config.prepared_net import prepared_net

        net, _ = prepared_net(build_net(settings, read_data(settings).shape), settings, read=False)
        settings = with_module_numbers(settings, net, length)
    numbers = scaled_numbers(settings.curve, length)
    if groups is None:
        groups = _groups_of_model(settings, numbers, net) or assumed_groups(numbers.curve)
    history = history or [first_segment(settings.record, length)]
    return Planned(settings.curve, numbers, groups, history, _plan(Curves(settings, numbers, groups), history))


def horizon_of(settings: Settings, samples: int | None = None) -> Horizon:
    """The length of the run's curve; `samples` is the number of training samples, where the data has been read."""
    if samples is None:
        samples = declared_samples(settings.data, settings.allow)
    tokens = settings.data.get("tokens_per_sample")
    if tokens is not None:
        integer("data.tokens_per_sample", tokens, "give the number of tokens in a sample, or null.")
    duration, batch = settings.trainer.duration, counted_batch(settings)
    length = Horizon.of(duration, samples=samples, batch_size=batch, tokens_per_sample=tokens)
    if length.total > LONGEST:
        raise ConfigError(f"trainer.duration={duration} is {length.total} updates, more than {LONGEST}: shorten it.")
    return length


@dataclass(frozen=True)
class Curves:
    """Makes the policies of the configs in a history, each once; for the present settings from `numbers`."""

    settings: Settings
    numbers: ScaledNumbers
    groups: Groups
    _made: list[tuple[CurveSettings, Horizon, LRPolicy]] = field(default_factory=list)

    def policy(self, config: Mapping[str, Any], length: Horizon) -> LRPolicy:
        """The policy of a resolved config over a length, without the changes of any resume."""
        curve = CurveSettings.of(config, self.settings.allow)
        for settings, horizon, policy in self._made:
            if (settings, horizon) == (curve, length):
                return policy
        most_gain = largest_gain(curve.scaling, self.settings.global_batch)
        policy = lr_policy(self._numbers(curve, length), self.groups, most_gain)
        self._made.append((curve, length, policy))
        return policy

    def scale(self, config: Mapping[str, Any], length: Horizon) -> float:
        """The factor of the batch-size rule of a resolved config."""
        return self._numbers(CurveSettings.of(config, self.settings.allow), length).scale

    def _numbers(self, curve: CurveSettings, length: Horizon) -> ScaledNumbers:
        present = (curve, length) == (self.settings.curve, self.numbers.length)
        return self.numbers if present else scaled_numbers(curve, length)


def _plan(curves: Curves, history: Sequence[Segment]) -> Plan:
    """The plan of a run whose curve has this history."""
    numbers = curves.numbers
    policy = resumed_curve(history, curves.settings.record, curves)
    policy, length = with_growing_batch(numbers.curve, policy, numbers.length)
    return Plan(policy, length, group_settings(numbers.curve, curves.groups))


def _groups_of_model(settings: Settings, numbers: ScaledNumbers, net: "nn.Module | None") -> Groups | None:
    """The groups of the model, for which the data is read; None where the config alone determines them."""
    if settings.curve.groups["_target_"] == PLAIN and not settings.freeze and not settings.adapter:
        return None
    from trainer.config.model_data import build_net, facts_of, read_data  # late: these need torch
    from trainer.config.module_optimizer import model_of
    from trainer.config.prepared_net import prepared_net

    if net is None:
        net, _ = prepared_net(build_net(settings, read_data(settings).shape), settings, read=False)
    return facts_of(model_of(settings, numbers, net).groups)


def _history(
    settings: Settings, length: Horizon, own: Horizon, model: "Model", checkpoint: "ResumePoint | None"
) -> tuple[list[Segment], bool]:
    """The history of the run's curve, and whether this resume has changed it; the checkpoint must fit the model."""
    if checkpoint is None:
        return curve_history(settings.record, settings.resume, length, None), False
    from trainer.resume.resume_point import Fitted, check_fits, kind_of_optimizer  # late: it needs torch

    with refusing(f"resume.path={checkpoint.path}"):
        kind = kind_of_optimizer(settings.record)
        check_fits(checkpoint, Fitted(model.net, model.groups, kind, own, settings.data, model.origin.base))
    history = curve_history(settings.record, settings.resume, length, checkpoint.saved)
    return history, history != checkpoint.saved["curve_history"]


def _start(checkpoint: "ResumePoint", horizon: Horizon) -> "Start":
    from trainer.resume.resume_point import start_of  # late: it needs torch

    with refusing(f"resume.path={checkpoint.path}"):
        return start_of(checkpoint, horizon)
