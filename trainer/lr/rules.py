"""The rules of `trainer.lr.lint`: each yields a message for every curve that it finds at fault.

The curves of groups with the same schedule differ by a factor only: a rule looks at the first of them.
"""

from collections.abc import Collection, Iterator
from itertools import pairwise
from operator import gt

from trainer.lr.plan import Plan
from trainer.lr.schedule import annotations
from trainer.lr.trace import Values

HUGE = 1000.0
TAIL = 0.201
"""A fifth of the peak, with some room for rounding."""
LONG, RISEN = 0.3, 0.9
STEEP, LEAST = 3.0, 0.1
PART = 10
"""A batch that grows stays below this part of an epoch: Smith et al. 2017, arXiv:1711.00489."""
SAME = 1e-9


def zero(plan: Plan) -> Iterator[str]:
    for whose, group in _apart(plan):
        frozen = max(annotations(plan.policy.schedule_of(group)).get("unfreezes", ()), default=0)
        curve = plan.curves[group][frozen:]
        if not min(curve, default=1.0):
            count, first = curve.count(0.0), frozen + curve.index(0.0)
            more = f" and at {count - 1} more" if count > 1 else ""
            yield (
                f"the learning rate{whose} is 0 at update {first}{more}, where nothing is learned: "
                "raise the start of the warm-up or the floor of the schedule."
            )


def last(plan: Plan) -> Iterator[str]:
    for whose, group in _apart(plan):
        curve, course = plan.curves[group], plan.courses[group]
        growth = plan.horizon.growth
        last = course.last / growth.ratio(len(curve) - 1) ** growth.exponent  # as with the starting batch
        if last > TAIL * course.peak and any(map(gt, curve, curve[1:])):
            yield (
                f"the last learning rate{whose}, {last:.4g}, is {last / course.peak:.0%} of the peak, "
                f"{course.peak:.4g}: lower the floor, add cooldown=linear, or fit the decay to the run."
            )


def rises(plan: Plan) -> Iterator[str]:
    total = plan.horizon.total
    for whose, group in _apart(plan):
        last = plan.courses[group].last
        for t in (total, total + 1, total + total // 2, 2 * total, 10 * total):
            later = plan.policy.lr(t, group)
            if later > last * (1 + SAME):
                yield (
                    f"the learning rate{whose} rises after the end of the run, from {last:.4g} at update {total - 1} "
                    f"to {later:.4g} at {t}: let the schedule hold its last value, for a run that is lengthened."
                )
                break


def unreached(plan: Plan) -> Iterator[str]:
    total = plan.horizon.total
    for whose, group in _apart(plan):
        found = annotations(plan.policy.schedule_of(group))
        late = sorted(t for kind in ("jumps", "knots") for t in found.get(kind, ()) if t >= total)
        if late:
            more = f" and {len(late) - 1} more are" if len(late) > 1 else " is"
            yield (
                f"the change of the schedule{whose} at update {late[0]}{more} never reached, the last update is "
                f"{total - 1}: place milestones and cycles within the run, in percent, or lengthen trainer.duration."
            )


def long_warmup(plan: Plan) -> Iterator[str]:
    total, rise = plan.horizon.total, plan.policy.warmup
    limit = int(LONG * total)
    if rise.updates > 1 and rise.updates > LONG * total:  # the one update of a shorter warm-up has the whole rate
        yield (
            f"the warm-up of {rise.updates} updates is {rise.updates / total:.0%} of the run of {total}: "
            "shorten warmup.duration or lengthen trainer.duration."
        )
    elif (risen := rise.factor(limit)) < RISEN:
        yield (
            f"the warm-up is only at {risen:.2f} after {LONG:.0%} of the run, at update {limit}: choose one of a set "
            "length, such as warmup=linear, or lengthen trainer.duration."
        )


def floor_above_group(plan: Plan) -> Iterator[str]:
    for whose, group in _apart(plan):
        high, last = plan.policy.peak_lr * plan.policy.groups[group], plan.courses[group].last
        if last > high * (1 + SAME):
            yield (
                f"the last learning rate{whose}, {last:.4g}, lies above the group's peak, {high:.4g}: the decay rises "
                "to a floor above it; give the floor as a share of the peak, up to 1."
            )


def jump(plan: Plan) -> Iterator[str]:
    policy = plan.policy
    begin = max(policy.warmup.updates, 1) + (policy.warmup.updates == 1)  # a warm-up of one update is a jump
    for whose, group in _apart(plan):
        if "noise" in annotations(policy.schedule_of(group)):
            continue
        known = {
            *annotations(policy.warmup.factor).get("jumps", ()),
            *annotations(policy.schedule_of(group)).get("jumps", ()),
        }
        curve, least = plan.curves[group], LEAST * plan.courses[group].peak
        for t, (before, now) in enumerate(pairwise(curve[begin - 1 :]), start=begin):
            steep = before > STEEP * now or now > STEEP * before
            if steep and abs(now - before) > least and t not in known and not _on_a_slope(curve, t):
                yield (
                    f"the learning rate{whose} jumps from {before:.4g} to {now:.4g} at update {t}, and the schedule "
                    "has no stair there: check where warm-up, schedule and cooldown meet, or annotate the jump."
                )
                break


def betas(plan: Plan) -> Iterator[str]:
    for name in ("momentum", "beta1", "beta2"):
        for (group, values), own in zip(
            plan.hyper_schedules.get(name, {}).items(),
            plan.policy.hyper_schedules[name].bases if name in plan.hyper_schedules else (),
        ):
            low, high = min(values), max(values)
            if max(own - low, high - own) > SAME:
                yield (
                    f"hyper_schedule.{name} takes the {name} of group {group} away from its configured value, {own:g}, "
                    f"to between {low:.4g} and {high:.4g}: choose hyper_schedule=none to keep it."
                )
                break


def unlogged(monitor: str | None, logged: Collection[str] | None) -> Iterator[str]:
    if monitor is None or logged is None or monitor in logged:
        return
    names = f"choose one of {', '.join(logged)}." if logged else "the run never validates: lower trainer.validate."
    yield f"the plateau watches {monitor}, which is never logged, and would never act: {names}"


def huge(plan: Plan) -> Iterator[str]:
    group, course = max(plan.courses.items(), key=lambda item: item[1].peak)
    if course.peak > HUGE:
        yield (
            f"the learning rate of group {group} is {course.peak:.4g} at update {course.peak_update}, above {HUGE:g}: "
            "lower optimizer.lr, the batch-size rule or the group's multiplier."
        )


def short_cycle(plan: Plan) -> Iterator[str]:
    total = plan.horizon.total
    for whose, group in _apart(plan):
        ends = sorted(annotations(plan.policy.schedule_of(group)).get("ends", ()))
        if ends and not {total, total - 1} & {*ends}:  # a decay may end at T - 1 by its convention
            before = max((t for t in ends if t < total), default=0)
            after = min((t for t in ends if t > total), default=None)
            until = f", which would be over at {after}" if after else ""
            yield (
                f"the run of {total} updates ends in the middle of a cycle{whose} that begins at {before}{until}: "
                "make the run as long as its cycles, or give their number."
            )


def large_batch(plan: Plan) -> Iterator[str]:
    start, epoch, growth = plan.horizon.batch_size, plan.horizon.updates_per_epoch, plan.horizon.growth
    limits = [(f"a tenth of the {epoch * start:,} samples of an epoch", epoch * start // PART)] if epoch else []
    if growth.noise_batch is not None:
        limits.append((f"the noise scale of {growth.noise_batch:,}", growth.noise_batch))
    for what, limit in limits:
        above = [stage for stage in growth.stages[1:] if stage.ratio * start > limit]
        if above:
            ratio = limit // start
            most = f"batch_schedule.max_batch_size={ratio * start}" if ratio > 1 else "batch_schedule=none"
            yield (
                f"the batch grows to {above[-1].ratio * start:,} samples, and from update {above[0].update} on lies "
                f"above {what}, where a lower rate does better than a larger batch: set {most}."
            )


def adaptive_gain(plan: Plan) -> Iterator[str]:
    policy = plan.policy
    if policy.adaptive and policy.most_gain is not None and policy.most_gain > 1:
        yield (
            f"scaling=adascale multiplies the rate of {' and '.join(policy.adaptive)}, which divides by second moments,"
            f" by up to {policy.most_gain:g}; the rule was derived for SGD: take optimizer=momentum or scaling=sqrt."
        )


def _apart(plan: Plan) -> Iterator[tuple[str, str]]:
    """The first group of each schedule that is not frozen, with ` of group NAME` where there are several schedules."""
    for groups in plan.alike():
        for group in [name for name in groups if plan.policy.groups[name]][:1]:
            yield f" of group {group}" if len(plan.alike()) > 1 else "", group


def _on_a_slope(curve: Values, t: int) -> bool:
    """Whether the change before or after that at update `t` has its direction and more than two thirds of its size."""
    change = curve[t] - curve[t - 1]
    beside = [curve[i] - curve[i - 1] for i in (t - 1, t + 1) if 0 < i < len(curve)]
    return any(1.5 * other / change > 1.0 for other in beside)
