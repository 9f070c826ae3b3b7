"""Plans for a terminal: tables, sketches, and the findings of lint."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from trainer.lr import Plan, lint
from trainer.lr.backoff import Backoff, backoff
from trainer.lr.trace import RUN

SKETCH = 68
"""The characters of a sketch that fit beside its axis into 80."""


def format_plan(plan: Plan, ignore: Sequence[str] = (), rollbacks: Sequence[Backoff] = ()) -> list[str]:
    """One plan: its length, its curves, the numbers of each group, milestones, factors and findings.

    The factors are those of a run with these `rollbacks`, which lower the rate below its plan.
    """
    return [
        format_head(plan),
        "",
        *format_sketches(plan),
        "",
        *align([("group", "value", "first", "at the peak", "last", "∑lr", "∑lr·λ"), *group_rows(plan)], words=2),
        "",
        *format_milestones(plan),
        *format_batches(plan),
        *format_factors(plan, rollbacks),
        "",
        *format_findings(plan, ignore),
    ]


def format_plans(plans: Mapping[str, Plan], ignores: Sequence[Sequence[str]]) -> list[str]:
    """Several plans beside each other, by the numbers of the first group of each."""
    rows: list[tuple[str, ...]] = [("", "T", "W", "first", "peak", "at", "last", "∑lr", "∑lr·λ", "lint")]
    lines = []
    for i, ((name, plan), ignore) in enumerate(zip(plans.items(), ignores), start=1):
        group, course = next(iter(plan.courses.items()))
        lint.check_names(ignore)
        rules = [found.rule for found in lint.lint(plan) if found.rule not in ignore]
        numbers = (course.first, course.peak, course.peak_update, course.last, course.area, plan.decay_area(group))
        length = (plan.horizon.total, plan.policy.warmup.updates)
        rows.append((str(i), *map(_number, (*length, *numbers)), ", ".join(rules) or "nothing"))
        lines += ["", f"{i}  {name}", *format_sketches(plan, height=6)]
    return [*align(rows, words=1, last=True), *lines]


def format_head(plan: Plan) -> str:
    """How long the run is, and how high it goes."""
    facts = plan.summary()
    growth, start, most = plan.horizon.growth, plan.horizon.batch_size, plan.policy.most_gain
    epoch = f", {facts['updates_per_epoch']} an epoch" if facts["updates_per_epoch"] and not growth.grows else ""
    sizes = f"{start} to {start * growth.largest.ratio}" if growth.grows else f"{start}"
    unit = "updates" if most is None else "scale-invariant iterations"
    if most is not None:
        epoch += f", in {facts['fewest_updates']} to {plan.horizon.total} updates with gains up to S = {most:g}"
    return (
        f"T = {facts['total_updates']} {unit} of {sizes} samples{epoch}; "
        f"warm-up W = {facts['warmup_updates']}; peak {facts['peak_lr']:g} at update {facts['peak_update']}"
    )


def format_sketches(plan: Plan, height: int = 10) -> list[str]:
    """A sketch for each schedule: the groups that follow it differ by a factor only."""
    lines: list[str] = []
    for groups in plan.alike():
        if len(plan.alike()) > 1:
            lines += [*([""] if lines else []), f"{'':>10}  {', '.join(groups)}"]
        sketch = plan.sketch(SKETCH, height, groups[0])
        top = plan.courses[groups[0]].peak
        lines += [f"{f'{top:.4g}' if i == 0 else '':>10} │{line}" for i, line in enumerate(sketch)]
        lines += [f"{'0':>10} └{'─' * min(SKETCH, plan.horizon.total)}"]
    return lines


def group_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """For each group a row for its learning rate, its momentum or β1, its weight decay, and each scheduled setting."""
    for group, course in plan.courses.items():
        yield (group, "lr", *map(_number, (course.first, course.peak, course.last, course.area)), "")
        for name in _names(plan, group):
            ends = _ends(plan, name, group)
            area = plan.decay_area(group) if name == "weight_decay" else None
            yield ("", name, *map(_number, ends), "", _number(area))
    for name, by_group in plan.hyper_schedules.items():
        if RUN in by_group:
            yield (RUN, name, *map(_number, _ends(plan, name, next(iter(plan.courses)))), "", "")


def format_milestones(plan: Plan) -> list[str]:
    """The updates at which something changes."""
    rows = plan.milestones()
    return [f"{'milestone':>10}", *(f"{t:>10}  {what}" for t, what in rows), ""] if rows else []


def format_batches(plan: Plan) -> list[str]:
    """The updates at which the batch grows, and the factor that the schedule has there."""
    rows = plan.batches()
    if not rows:
        return []
    fixed, epoch = plan.horizon.reference, plan.horizon.updates_per_epoch
    head = f"{'batch':>10}  in place of {fixed.total} updates of {fixed.batch_size} samples"
    lines = [
        f"{row['batch']:>10}  from update {row['update']}"
        + (f", epoch {row['samples'] / (epoch * fixed.batch_size):.4g}" if epoch else "")
        + f", schedule {row['schedule']:.4g}"
        for row in rows
    ]
    return [head, *lines, ""]


def format_factors(plan: Plan, rollbacks: Sequence[Backoff] = ()) -> list[str]:
    """The factors of the first group at the updates that matter, without those that are 1 at all of them."""
    policy = plan.policy
    shown = sorted({*plan.landmarks(), *(begin for begin, _, _ in rollbacks if begin < plan.horizon.total)})
    found = {t: policy.explain(t, backoff=backoff(t, rollbacks)) for t in shown}
    names = [name for name in policy.explain(0) if any(factors[name] != 1 for factors in found.values())]
    return [
        f"{'update':>10}  {'lr':>12}  " + "  ".join(f"{name:>10}" for name in names),
        *(
            f"{t:>10}  {prod(factors.values()):>12.6g}  " + "  ".join(f"{factors[name]:>10.6g}" for name in names)
            for t, factors in found.items()
        ),
    ]


def format_rollbacks(rollbacks: Sequence[Backoff]) -> list[str]:
    """The rollbacks of a run; empty where there are none."""
    lines = [
        f"{'rollback':>10}  to update {begin}: from there on backoff {factor:g}"
        + (f", back at 1 after {rewarm} updates" if rewarm else "")
        for begin, factor, rewarm in rollbacks
    ]
    return ["", *lines] if lines else []


def format_findings(plan: Plan, ignore: Sequence[str]) -> list[str]:
    """The findings of lint, and whether each is ignored, refused or a warning."""
    lint.check_names(ignore)
    lines = []
    for rule, level, message in lint.lint(plan):
        outcome = "ignored" if rule in ignore else "refused" if level == lint.ERROR else level
        lines.append(f"{outcome:>10}  {rule}: {message}")
    return lines or [f"{'lint':>10}  nothing found"]


def align(rows: Sequence[tuple[str, ...]], words: int, last: bool = False) -> list[str]:
    """Rows as lines with aligned columns: the first `words` columns to the left, and the last one where asked."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    left = {*range(words), *([len(widths) - 1] if last else [])}
    return [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _names(plan: Plan, group: str) -> list[str]:
    """The settings of a group to show; a schedule of momentum sets β1 where there are betas."""
    known = plan.settings.get(group, {})
    first = "beta1" if "beta1" in known and "momentum" not in plan.hyper_schedules else "momentum"
    scheduled = [name for name, by_group in plan.hyper_schedules.items() if group in by_group]
    names = [name for name in (first, "weight_decay") if name in known]
    return [*names, *(name for name in scheduled if name not in names)]


def _ends(plan: Plan, name: str, group: str) -> tuple[float | None, ...]:
    """A setting at the first update, at the peak of the group's learning rate, and at the last update."""
    value = plan.setting(name, group)
    if value is None or isinstance(value, float | int):
        return (value, value, value)
    return (value[0], value[plan.courses[group].peak_update], value[-1])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.5g}"
