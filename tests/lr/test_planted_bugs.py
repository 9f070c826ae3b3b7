"""The usual mistakes in learning-rate code, planted one by one: each is caught, and the test says by what."""

import math

import pytest

from trainer.lr import (
    ConfigError,
    Horizon,
    HyperSchedule,
    LRPolicy,
    Plan,
    Warmup,
    compose,
    cosine,
    linear,
    linear_scaling,
    linear_warmup,
    lint,
    multi_step,
    step,
)

T, W, EPOCH, BASE = 200, 20, 20, 0.1
RUN = Horizon(T, batch_size=4, updates_per_epoch=EPOCH)


def ramp(t):
    return min(1.0, (t + 1) / W)


def fall(t):
    return 1.0 - min(1.0, max(0, t - W) / (T - W))


def plan(schedule=fall, warmup=ramp, scale=1.0, **more):
    """The plan of plain functions of the run's t, wrong or right."""
    return Plan(LRPolicy(BASE, scale, Warmup(W, warmup), schedule, **more), RUN)


def made_of(schedule, **more):
    """The plan of a schedule of the framework after its own warm-up."""
    return Plan(
        LRPolicy(BASE, 1.0, *compose(RUN, lambda h: linear_warmup(h, duration=W), schedule), **more),
        RUN,
    )


def found(made):
    return [finding.rule for finding in lint.lint(made)]


def test_the_pieces_are_right_where_no_bug_is_planted():
    assert found(plan()) == []
    assert list(plan().curve) == pytest.approx(list(made_of(linear).curve), rel=1e-12)


def test_a_warmup_off_by_one_whose_first_update_is_at_0_is_caught_by_lint():
    assert found(plan(warmup=lambda t: min(1.0, t / W))) == ["zero-lr"]


def test_a_schedule_that_starts_at_0_is_caught_by_lint():
    assert found(plan(lambda t: min(t / 30, 1.0) * fall(t), lambda t: 1.0)) == ["zero-lr"]


def test_a_warmup_off_by_one_that_ends_early_is_caught_by_a_golden_value():
    golden = {0: 0.005, 9: 0.05, 18: 0.095, 19: 0.1, 20: 0.1}
    assert {t: plan().curve[t] for t in golden} == pytest.approx(golden, rel=1e-12)
    bug = plan(warmup=lambda t: min(1.0, (t + 2) / W))
    assert {t: bug.curve[t] for t in golden} != pytest.approx(golden, rel=1e-3)


def test_a_warmup_that_goes_beyond_1_is_caught_by_the_law_that_the_peak_is_base_times_scale():
    bug = plan(warmup=lambda t: (t + 1) / W if t <= W else 1.0)
    assert plan().courses["all"].peak == BASE
    assert bug.courses["all"].peak > BASE


def test_an_epoch_taken_for_an_update_is_caught_by_lint():
    assert found(plan(lambda t: fall(t // EPOCH), lambda t: ramp(t // EPOCH))) == ["rises-after-end", "long-warmup"]


def test_a_warmup_that_starts_again_in_each_epoch_is_caught_by_lint():
    assert "jump" in found(plan(warmup=lambda t: ramp(t % EPOCH)))


def test_an_absolute_floor_taken_for_a_share_is_caught_by_a_golden_value():
    def last(floor):
        return made_of(lambda h: cosine(h, floor=floor)).policy.lr(T)

    assert last(0.01 / BASE) == pytest.approx(0.01, rel=1e-12)
    assert last(0.01) != pytest.approx(0.01, rel=1e-3)


def test_a_floor_above_the_peak_is_refused_by_the_schedule_and_caught_by_lint_for_a_group():
    with pytest.raises(ConfigError, match=r"floor=1\.5"):
        linear(RUN, floor=1.5)
    eta_min = 0.005
    head = lambda t: eta_min / (BASE * 0.01) + (1.0 - eta_min / (BASE * 0.01)) * fall(t)  # noqa: E731
    assert "floor-above-group" in found(plan(groups={"all": 1.0, "head": 0.01}, own={"head": head}))


def test_a_curve_that_rises_after_the_end_is_caught_by_lint():
    wave = lambda t: 0.5 * (1.0 + math.cos(math.pi * max(0, t - W) / (T - W)))  # noqa: E731
    assert found(plan(wave)) == ["rises-after-end"]
    drift = lambda t: 0.1 + 0.9 * fall(t) if t < T else 0.1045 * (1.05 if t > T else 1.0)  # noqa: E731
    assert found(plan(lambda t: drift(min(t, T - 1)))) == []
    assert found(plan(drift)) == ["rises-after-end"]  # by 5 %
    assert found(made_of(cosine)) == []


def test_a_warmup_counted_twice_is_caught_by_the_law_on_its_area():
    bug = plan(lambda t: ramp(t) * fall(t))
    area = BASE * (W + 1) / 2
    assert math.fsum(plan().curve[:W]) == pytest.approx(area, rel=1e-12)
    assert math.fsum(bug.curve[:W]) < 0.8 * area


def test_a_decay_that_is_not_put_off_by_the_warmup_is_caught_by_lint_where_it_is_steep_and_by_continuity():
    steep = lambda t: 0.9**t if t >= W else 1.0  # noqa: E731
    assert found(plan(steep)) == ["jump"]
    gentle = plan(lambda t: 1.0 - t / T if t >= W else 1.0)
    assert plan().curve[W - 1] == plan().curve[W] == BASE
    assert gentle.curve[W - 1] != gentle.curve[W]


def test_a_horizon_in_batches_in_place_of_updates_is_caught_by_lint():
    accumulate = 4
    assert found(plan(lambda t: 1.0 - min(1.0, max(0, t - W) / (accumulate * T - W)))) == ["last-lr"]


def test_a_horizon_that_is_too_short_is_refused_by_the_plan():
    with pytest.raises(ConfigError, match=r"is -\d.* at update 121: it must be finite and not negative"):
        plan(lambda t: 1.0 - max(0, t - W) / 100)


def test_a_scale_applied_twice_is_caught_by_lint_where_it_is_large_and_by_a_golden_value():
    assert plan(scale=linear_scaling(64, 16)).courses["all"].peak == 0.4
    assert plan(scale=linear_scaling(64, 16) ** 2).courses["all"].peak != 0.4
    assert found(plan(scale=linear_scaling(2**15, 32))) == []
    assert found(plan(scale=linear_scaling(2**15, 32) ** 2)) == ["huge-lr"]


def test_milestones_in_another_unit_that_are_never_reached_are_caught_by_lint_and_refused():
    for given in (["30ep", "60ep", "90ep"], [30000, 60000, 90000]):
        made = made_of(lambda h, given=given: multi_step(h, milestones=given))
        assert found(made) == ["unreached"]
        with pytest.raises(
            ConfigError, match="lint unreached: .* and 2 more are never reached, the last update is 199"
        ):
            lint.check(made, [])


def test_an_inverted_gamma_is_refused_by_the_schedule_and_caught_by_lint():
    with pytest.raises(ConfigError, match="gamma=10"):
        step(RUN, gamma=10.0)
    assert "floor-above-group" in found(plan(lambda t: 10.0 ** (t // 60)))


def test_a_cosine_over_two_pi_is_caught_by_lint():
    assert "last-lr" in found(plan(lambda t: 0.5 * (1.0 + math.cos(2 * math.pi * fall(t)))))


def test_a_multiplier_of_a_group_that_is_lost_is_caught_by_the_law_that_plan_and_policy_agree():
    class Lost(LRPolicy):
        def explain(self, t, group=None, plateau=1.0, gain=1.0, backoff=1.0):
            return {**super().explain(t, group, plateau, gain, backoff), "group_mult": 1.0}

    for kind, agree in ((LRPolicy, True), (Lost, False)):
        policy = kind(BASE, 1.0, Warmup(W, ramp), fall, {"all": 1.0, "head": 0.1})
        assert (Plan(policy, RUN).curves["head"][50] == policy.lr(50, "head")) is agree


def test_a_division_of_0_by_0_at_the_end_is_refused_by_the_plan():
    with pytest.raises(ConfigError, match="is nan at update 199"):
        plan(lambda t: math.nan if t == T - 1 else 1.0)


def test_a_momentum_that_a_schedule_overwrites_is_caught_by_lint():
    cycled = HyperSchedule(lambda t, base, share: 0.95 - 0.1 * share, [0.9])
    made = plan(hyper_schedules={"momentum": cycled})
    assert found(made) == ["betas-overwritten"]
    assert "0.9, to between 0.85 and 0.9494" in lint.lint(made)[0].message
