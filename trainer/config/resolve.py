"""From checked settings to all that decides the learning rate, once: length, numbers, groups, plan.

Whatever comes after takes these values. A plan alone needs neither torch nor data, unless its groups follow from the
model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.config.adascale_config import counted_batch, in_own_updates, largest_gain
from trainer.config.batch_scaling import ScaledNumbers, scaled_numbers
from trainer.config.batch_schedule import with_growing_batch
from trainer.config.instantiate import refusing
from trainer.config.lr_policy import Groups, assumed_groups, group_settings, lr_policy
from trainer.config.settings import CurveSettings, Settings, declared_samples
from trainer.lr import ConfigError, Horizon, LRPolicy, Plan
from trainer.lr.bounds import integer
from trainer.resume.curve_history import Segment, curve_history, first_segment
from trainer.resume.resumed_curve import resumed_curve

if TYPE_CHECKING:
    from trainer.config.model_data import Model
    from trainer.resume.resume_point import ResumePoint, Start

PLAIN = "trainer.optim.groups.decay_groups"
"""The groups that follow from the weight decay alone."""
LONGEST = 10**8
"""Updates of a run: each has a learning rate that is planned, checked and kept in memory."""


@dataclass(frozen=True)
class Resolved:
    """A run before anything of it is built but its data and its net.

    `numbers` are the tuned hyper-parameters and what the batch-size rule makes of them. `plan` is on the clock of its
    curve, `horizon` counts the updates of the run itself. `history` are the segments of the curve, of which a resume
    may have added the last (`changed`). A resumed run goes on from `checkpoint`, and begins at `start`.
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


def resolve(settings: Settings, checkpoint: "ResumePoint | None" = None) -> Resolved:
    """Everything that decides a run, which goes on from `checkpoint` if one is given. Nothing is trained yet.

    Raises `ConfigError` for values that cannot be, and for a checkpoint that does not fit.
    """
    from trainer.config.model_data import build_model, build_net, facts_of, prepare, read_data
    from trainer.config.sharding import check_sharded  # late: these need torch

    prepare(settings.trainer, settings.seed)
    declared = horizon_of(settings) if settings.data.get("samples") is not None else None
    data = read_data(settings)
    length = declared or horizon_of(settings, data.train_samples)
    own = in_own_updates(settings, length, data.train_samples)
    net = build_net(settings, data.shape)
    numbers = scaled_numbers(settings.curve, length)
    model = build_model(numbers.curve, net, settings.full_batch)
    check_sharded(settings, net, model.optimizer())
    history, changed = _history(settings, length, own, model, checkpoint)
    groups = facts_of(model.groups)
    plan = _plan(Curves(settings, numbers, groups), history)
    horizon = in_own_updates(settings, plan.horizon, data.train_samples)
    start = None if checkpoint is None else _start(checkpoint, horizon)
    return Resolved(settings, numbers, groups, plan, horizon, history, data, model, checkpoint, start, changed)


def plan_of(settings: Settings, groups: Groups | None = None, history: Sequence[Segment] = ()) -> Plan:
    """The plan of a run. `groups` and `history` are those that the run has had, where it has been started before.

    Where groups follow from the model and are not given, the data is read and the net built.
    """
    length = horizon_of(settings)
    numbers = scaled_numbers(settings.curve, length)
    if groups is None:
        groups = _groups_of_model(settings, numbers) or assumed_groups(numbers.curve)
    return _plan(Curves(settings, numbers, groups), history or [first_segment(settings.record, length)])


def horizon_of(settings: Settings, samples: int | None = None) -> Horizon:
    """The length of the run's curve; `samples` is what the data really holds, where it has been read."""
    if samples is None:
        samples = declared_samples(settings.data, settings.allow)
    tokens = settings.data.get("tokens_per_sample")
    if tokens is not None:
        integer("data.tokens_per_sample", tokens, "give the number of tokens in a sample, or null.")
    duration, batch = settings.trainer.duration, counted_batch(settings)
    length = Horizon.of(duration, samples=samples, batch_size=batch, tokens_per_sample=tokens)
    if length.total > LONGEST:
        raise ConfigError(f"trainer.duration={duration} is {length.total} updates, beyond any plan: shorten it.")
    return length


@dataclass(frozen=True)
class Curves:
    """Makes the curves that a history names, each once; those of the present settings from the numbers at hand."""

    settings: Settings
    numbers: ScaledNumbers
    groups: Groups
    _made: list[tuple[CurveSettings, Horizon, LRPolicy]] = field(default_factory=list)

    def policy(self, config: Mapping[str, Any], length: Horizon) -> LRPolicy:
        """The curve of a resolved config over a length as if no resume had changed it."""
        curve = CurveSettings.of(config)
        for settings, horizon, policy in self._made:
            if (settings, horizon) == (curve, length):
                return policy
        most_gain = largest_gain(curve.scaling, self.settings.global_batch)
        policy = lr_policy(self._numbers(curve, length), self.groups, most_gain)
        self._made.append((curve, length, policy))
        return policy

    def scale(self, config: Mapping[str, Any], length: Horizon) -> float:
        """What the batch-size rule of a resolved config multiplies the learning rate by."""
        return self._numbers(CurveSettings.of(config), length).scale

    def _numbers(self, curve: CurveSettings, length: Horizon) -> ScaledNumbers:
        present = (curve, length) == (self.settings.curve, self.numbers.length)
        return self.numbers if present else scaled_numbers(curve, length)


def _plan(curves: Curves, history: Sequence[Segment]) -> Plan:
    """The plan of a run whose curve has this history: the one place where a plan is put together."""
    numbers = curves.numbers
    policy = resumed_curve(history, curves.settings.record, curves)
    policy, length = with_growing_batch(numbers.curve, policy, numbers.length)
    return Plan(policy, length, group_settings(numbers.curve, curves.groups))


def _groups_of_model(settings: Settings, numbers: ScaledNumbers) -> Groups | None:
    """The groups of the model itself, for which the data is read; None where the config alone tells them."""
    if settings.curve.groups["_target_"] == PLAIN:
        return None
    from trainer.config.model_data import build_model, build_net, facts_of, read_data  # late: these need torch

    net = build_net(settings, read_data(settings).shape)
    return facts_of(build_model(numbers.curve, net, settings.full_batch).groups)


def _history(
    settings: Settings, length: Horizon, own: Horizon, model: "Model", checkpoint: "ResumePoint | None"
) -> tuple[list[Segment], bool]:
    """The history of the run's curve, and whether this resume has changed it; the checkpoint must fit the model."""
    if checkpoint is None:
        return curve_history(settings.record, settings.resume, length, None), False
    from trainer.resume.resume_point import Fitted, check_fits  # late: it needs torch

    with refusing(f"resume.path={checkpoint.path}"):
        check_fits(checkpoint, Fitted(model.net, model.groups, settings.curve.optimizer["_target_"], own))
    history = curve_history(settings.record, settings.resume, length, checkpoint.saved)
    return history, history != checkpoint.saved["curve_history"]


def _start(checkpoint: "ResumePoint", horizon: Horizon) -> "Start":
    from trainer.resume.resume_point import start_of  # late: it needs torch

    with refusing(f"resume.path={checkpoint.path}"):
        return start_of(checkpoint, horizon)
