"""What the range test reads from curves whose answer is known, and from runs in another precision."""

import math

import pytest

from trainer.config.resolve import resolve
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.lr.range_test import Sweep, edge, rates
from trainer.tools.range_test import command, output
from trainer.tools.range_test.confirm import Confirmation, Trial
from trainer.tools.range_test.readings import cycle_bounds, upper_bound
from trainer.tools.range_test.rectified import as_in_the_run


def test_momentum_is_read_as_its_memory():
    memories = rates(2.0, 1000.0, 100)
    losses = [2.3 - 1.5 * min(i / 70, 1.0) + 3.0 * max(0, i - 80) for i in range(100)]
    bound = upper_bound([Sweep([1 - 1 / one for one in memories], losses, None, 0, 100)], "momentum")
    assert 1 / (1 - bound) == pytest.approx(edge(Sweep(memories, losses)).rate)
    with pytest.raises(ConfigError, match="Momentum m is read as its memory"):
        upper_bound([Sweep([1 - 1 / one for one in memories], [2.0] * 100, None, 0, 100)], "momentum")


@pytest.mark.parametrize(("name", "beta2"), [("radam", 0.999), ("radam", 0.98), ("ranger", 0.999)])
def test_the_rates_of_radam_are_those_of_the_middle_of_the_run(name, beta2, compose):
    """Liu et al. 2019: r(n) = sqrt((ρ - 4)(ρ - 2)ρ∞ / ((ρ∞ - 4)(ρ∞ - 2)ρ)) in the n-th step that has it."""

    def factor(n):
        limit = 2 / (1 - beta2) - 1
        rho = limit - 2 * n * beta2**n / (1 - beta2**n)
        return math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))

    betas = f"optimizer.betas=[{0.95 if name == 'ranger' else 0.9},{beta2}]"
    resolved = resolve(settings_of(compose(f"optimizer={name}", betas, "trainer.duration=600")))
    made = as_in_the_run(Sweep([1.0] * 100, [2.0] * 100, 1.0, 0, 100), resolved)
    assert made.rates[0] < made.rates[-1] < made.broke
    assert made.rates[95] == pytest.approx(factor(100) / factor(305), rel=1e-6)


def test_the_rates_of_other_optimizers_are_as_they_are(compose):
    sweep = Sweep([1.0] * 100, [2.0] * 100)
    assert as_in_the_run(sweep, resolve(settings_of(compose("optimizer=adamw")))) is sweep


@pytest.mark.parametrize("beta2", [0.0, 0.5, 0.6])
def test_radam_that_never_rectifies_has_its_rates_as_they_are(beta2, compose):
    sweep = Sweep([1.0] * 100, [2.0] * 100)
    resolved = resolve(settings_of(compose("optimizer=radam", f"optimizer.betas=[0.9,{beta2}]")))
    assert as_in_the_run(sweep, resolved) is sweep


@pytest.mark.parametrize("name", ["radam", "ranger", "schedule_free_radam"])
def test_without_betas_in_the_config_those_of_the_class_count(name, compose):
    sweep = Sweep([1.0] * 100, [2.0] * 100)
    given, left_out = (compose(f"optimizer={name}", word) for word in ("trainer.duration=600", "~optimizer.betas"))
    left_out.trainer.duration = 600
    first, second = (as_in_the_run(sweep, resolve(settings_of(cfg))) for cfg in (given, left_out))
    assert first.rates == second.rates


def test_cycles_go_from_where_the_score_leaves_its_start_to_where_it_falls():
    values = rates(0.005, 1.0, 200, "linear")
    scores = [0.1 if r < 0.1 else min(0.1 + 4 * (r - 0.1), 0.9) if r < 0.6 else 0.3 for r in values]
    found = cycle_bounds(Sweep(values, scores))
    assert found.base == pytest.approx(0.12, abs=0.01)
    assert found.highest == pytest.approx(0.6, abs=0.01)
    with pytest.raises(ConfigError, match="still holds at the last rate"):
        cycle_bounds(Sweep(values[:115], scores[:115]))
    with pytest.raises(ConfigError, match="does not rise"):
        cycle_bounds(Sweep(values, [0.5] * 200))


def test_a_winner_at_the_end_of_the_bracket_is_told_and_a_broken_training_never_wins():
    found = Confirmation(100, "validation loss", [Trial(0.1, [0.5]), Trial(0.3, [0.4]), Trial(1.0, [math.inf])])
    assert (found.winner.rate, found.margin) == (0.3, pytest.approx(0.25))
    text = "\n".join(output.format_confirmation(found, ["optimizer.lr=0.3"]))
    assert "0.3 wins by 25 % of its loss" in text
    assert "of the three" not in text
    alone = Confirmation(100, "validation loss", [Trial(0.1, [0.5]), Trial(0.3, [math.inf]), Trial(1.0, [math.inf])])
    assert "0.1 alone did not break. paste: optimizer.lr=0.1" in "\n".join(
        output.format_confirmation(alone, ["optimizer.lr=0.1"])
    )
    found = Confirmation(
        100, "validation loss", [Trial(0.1, [0.3, 0.4]), Trial(0.3, [0.4, 0.4]), Trial(1.0, [0.9, 0.9])]
    )
    text = "\n".join(output.format_confirmation(found, ["optimizer.lr=0.1"]))
    assert "The winner is the lowest of the three: the best may lie below it." in text
    assert "(0.3, 0.4)" in text


@pytest.mark.parametrize("words", [("64-true", "model.norm=batch"), ("bf16-true", "optimizer=adamw")])
def test_a_net_in_the_precision_of_the_run_is_swept_and_left_as_it_was(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    precision, *more = words
    cpu = ("trainer.accelerator=cpu", "trainer.threads=1")
    command.main([*cpu, f"trainer.precision={precision}", *more, "--updates", "60", "--seeds", "2"])
    assert "range_test.png" in capsys.readouterr().out
