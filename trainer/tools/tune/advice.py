"""How the best rate is expected to change with the length, the batch and the width, and by which rule."""

from collections.abc import Sequence

from trainer.config.resolve import Resolved
from trainer.config.tuned_hyperparameters import adaptive, tuned_hyperparameters
from trainer.tools.tune.answer import StageResult
from trainer.tools.tune.axes import PER_DECADE
from trainer.tools.tune.race import Point, vertex


def expected_changes(resolved: Resolved, names: Sequence[str], stages: Sequence[StageResult]) -> list[str]:
    """A line for each of length, batch and width; only for the learning rate."""
    if "lr" not in names:
        return []
    return [_length(stages, resolved.horizon.total, names.index("lr")), _batch(resolved), _width(resolved)]


def drift(stages: Sequence[StageResult], axis: int = 0, rivals: Sequence[Point] = ()) -> float:
    """By how many lattice steps the best place moved from one stage to the next; from a rival where that is nearer."""
    before, after = stages[-2:]
    places = [vertex(before.table, before.step, axis), *(float(one[axis]) for one in rivals)]
    end = vertex(after.table, after.step, axis)
    return min((end - place for place in places), key=abs)


def _length(stages: Sequence[StageResult], total: int, axis: int) -> str:
    coarse, fine = stages[-2:]
    lengths = f"from {coarse.updates:,} to {fine.updates:,} updates"
    if coarse.updates == fine.updates:
        measured = f"all trainings had {fine.updates:,} updates"
    elif all(_is_inside(stage, axis) for stage in (coarse, fine)):
        measured = f"{lengths} the best rate moved by × {10 ** (drift(stages, axis) / PER_DECADE):.2g} (measured)"
    else:
        why = "at one of the lengths no rate was trained on one side of the best"
        measured = f"{lengths} the shift of the best rate was not measured, since {why}"
    rule = "in the bounds of convex theory it falls as 1/√T (Defazio et al. 2023, arXiv:2310.07831)"
    rest = "" if fine.updates == total else f"; the run has {total:,}"
    return f"length: {measured}{rest}; {rule}"


def _is_inside(stage: StageResult, axis: int) -> bool:
    """Whether a lower and a higher place than the best were trained."""
    table = stage.table
    places, best = [point[axis] for point in table.scores], table.best[axis]
    return min(places) < best < max(places)


def _batch(resolved: Resolved) -> str:
    settings, batch = resolved.settings, resolved.horizon.batch_size
    main = tuned_hyperparameters(settings.curve)[0]
    if adaptive(main, settings.curve.allow):
        rule, name = "with the square root of the batch (Malladi et al. 2022, arXiv:2205.10287)", "sqrt"
    else:
        rule, name = "in proportion to the batch (Goyal et al. 2017, arXiv:1706.02677)", "linear"
    base = settings.curve.scaling.get("base_batch_size") or batch
    limit = "as long as that is well below the noise scale (cadence noise-scale)"
    return f"batch: it grows {rule}, {limit}: scaling={name} scaling.base_batch_size={base}"


def _width(resolved: Resolved) -> str:
    rule = "for Adam the rate of hidden matrices falls as 1/width (muP: Yang & Hu et al. 2022, arXiv:2203.03466)"
    return f"width: {rule}: groups=mup groups.base_width=WIDTH keeps the answer; otherwise tune again"
