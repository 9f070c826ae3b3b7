"""What the range test reads from curves whose answer is known: a bound of momentum, cycles, a confirmed winner."""

import math

import pytest

from trainer.lr import ConfigError
from trainer.lr.range_test import Sweep, edge, rates
from trainer.tools.range_test import output
from trainer.tools.range_test.confirm import Confirmation, Trial
from trainer.tools.range_test.readings import cycle_bounds, upper_bound


def test_momentum_is_read_as_its_memory():
    memories = rates(2.0, 1000.0, 100)
    losses = [2.3 - 1.5 * min(i / 70, 1.0) + 3.0 * max(0, i - 80) for i in range(100)]
    bound = upper_bound([Sweep([1 - 1 / one for one in memories], losses, None, 0, 100)], "momentum")
    assert 1 / (1 - bound) == pytest.approx(edge(Sweep(memories, losses)).rate)
    with pytest.raises(ConfigError, match="Momentum m is read as its memory"):
        upper_bound([Sweep([1 - 1 / one for one in memories], [2.0] * 100, None, 0, 100)], "momentum")


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
    assert "end of the bracket" not in text
    alone = Confirmation(100, "validation loss", [Trial(0.1, [0.5]), Trial(0.3, [math.inf]), Trial(1.0, [math.inf])])
    assert "0.1 alone did not break. paste: optimizer.lr=0.1" in "\n".join(
        output.format_confirmation(alone, ["optimizer.lr=0.1"])
    )
    found = Confirmation(
        100, "validation loss", [Trial(0.1, [0.3, 0.4]), Trial(0.3, [0.4, 0.4]), Trial(1.0, [0.9, 0.9])]
    )
    text = "\n".join(output.format_confirmation(found, ["optimizer.lr=0.1"]))
    assert "the best may lie below it" in text
    assert "(0.3, 0.4)" in text
