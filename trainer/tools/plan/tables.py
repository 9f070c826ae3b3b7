"""Plans for a terminal: tables, sketches, and what lint says of them."""

from collections.abc import Iterator, Mapping, Sequence

from trainer.lr import Plan, lint
from trainer.lr.trace import RUN


def single(plan: Plan, ignore: Sequence[str] = ()) -> list[str]:
    """One plan: its length, its curves, the numbers of each group, milestones, factors and findings."""
    return [
        head(plan),
        "",
        *sketches(plan),
        "",
        *aligned([("group", "value", "first", "at the peak", "last", "∑lr", "∑lr·λ"), *values(plan)], words=2),
        "",
        *milestones(plan),
        *batches(plan),
        *factors(plan),
        "",
        *findings(plan, ignore),
    ]


def several(plans: Mapping[str, Plan], ignores: Sequence[Sequence[str]]) -> list[str]:
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
        lines += ["", f"{i}  {name}", *sketches(plan, height=6)]
    return [*aligned(rows, words=1, last=True), *lines]


def head(plan: Plan) -> str:
    """How long the run is, and how high it goes."""
    facts = plan.facts()
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


def sketches(plan: Plan, height: int = 10) -> list[str]:
    """A sketch for each schedule: the groups that follow it differ by a factor only."""
    lines: list[str] = []
    for groups in plan.alike():
        if len(plan.alike()) > 1:
            lines += [*([""] if lines else []), f"{'':>10}  {', '.join(groups)}"]
        sketch = plan.sketch(height=height, group=groups[0])
        top = plan.courses[groups[0]].peak
        lines += [f"{f'{top:.4g}' if i == 0 else '':>10} │{line}" for i, line in enumerate(sketch)]
        lines += [f"{'0':>10} └{'─' * min(72, plan.horizon.total)}"]
    return lines


def values(plan: Plan) -> Iterator[tuple[str, ...]]:
    """For each group a row for its learning rate, its momentum or β1, its weight decay, and all that changes."""
    for group, course in plan.courses.items():
        yield (group, "lr", *map(_number, (course.first, course.peak, course.last, course.area)), "")
        for name in _names(plan, group):
            ends = _ends(plan, name, group)
            area = plan.decay_area(group) if name == "weight_decay" else None
            yield ("", name, *map(_number, ends), "", _number(area))
    for name, owners in plan.hyper_schedules.items():
        if RUN in owners:
            yield (RUN, name, *map(_number, _ends(plan, name, next(iter(plan.courses)))), "", "")


def milestones(plan: Plan) -> list[str]:
    """Where something happens."""
    rows = plan.milestones()
    return [f"{'milestone':>10}", *(f"{t:>10}  {what}" for t, what in rows), ""] if rows else []


def batches(plan: Plan) -> list[str]:
    """Where the batch grows, and what is left to the learning rate."""
    rows = plan.batches()
    if not rows:
        return []
    whole, epoch = plan.horizon.reference, plan.horizon.updates_per_epoch
    told = f"{'batch':>10}  in place of {whole.total} updates of {whole.batch_size} samples"
    lines = [
        f"{row['batch']:>10}  from update {row['update']}"
        + (f", epoch {row['samples'] / (epoch * whole.batch_size):.4g}" if epoch else "")
        + f", schedule {row['schedule']:.4g}"
        for row in rows
    ]
    return [told, *lines, ""]


def factors(plan: Plan) -> list[str]:
    """The factors of the first group at the updates that matter."""
    policy = plan.policy
    names = "  ".join(f"{name:>10}" for name in policy.explain(0))
    return [
        f"{'update':>10}  {'lr':>12}  {names}",
        *(
            f"{t:>10}  {policy.lr(t):>12.6g}  " + "  ".join(f"{value:>10.6g}" for value in policy.explain(t).values())
            for t in plan.landmarks()
        ),
    ]


def findings(plan: Plan, ignore: Sequence[str]) -> list[str]:
    """What lint has found, and what becomes of it."""
    lint.check_names(ignore)
    lines = []
    for rule, level, message in lint.lint(plan):
        what = "ignored" if rule in ignore else "refused" if level == lint.ERROR else level
        lines.append(f"{what:>10}  {rule}: {message}")
    return lines or [f"{'lint':>10}  nothing found"]


def aligned(rows: Sequence[tuple[str, ...]], words: int, last: bool = False) -> list[str]:
    """Rows with their columns below each other: the first `words` to the left, and the last one where asked."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    left = {*range(words), *([len(widths) - 1] if last else [])}
    return [
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _names(plan: Plan, group: str) -> list[str]:
    """The settings of a group to show; a dial that is called momentum turns β1 where there are betas."""
    known = plan.settings.get(group, {})
    first = "beta1" if "beta1" in known and "momentum" not in plan.hyper_schedules else "momentum"
    turned = [name for name, owners in plan.hyper_schedules.items() if group in owners]
    names = [name for name in (first, "weight_decay") if name in known]
    return [*names, *(name for name in turned if name not in names)]


def _ends(plan: Plan, name: str, group: str) -> tuple[float | None, ...]:
    """A setting at the first update, at the peak of the group's learning rate, and at the last update."""
    found = plan.setting(name, group)
    if found is None or isinstance(found, float | int):
        return (found, found, found)
    return (found[0], found[plan.courses[group].peak_update], found[-1])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.5g}"
