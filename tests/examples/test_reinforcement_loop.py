"""The loop by hand of an example has the rates of its plan, learns, and goes on to the same bits."""

import re

import torch

from tests.examples.projects import Example, inside


def test_a_loop_by_hand_learns_at_the_planned_rates_and_goes_on_to_the_same_bits(tmp_path, capsys):
    with inside(Example("reinforcement", "", 0).folder):
        import reinforcement_loop

        import cadence

        whole = reinforcement_loop.train(tmp_path / "whole.pt")
        said = re.findall(r"lr ([\d.]+)  steps ([\d.]+)", capsys.readouterr().out)
        plan = cadence.plan("optimizer=adam", "optimizer.lr=0.01", "schedule=linear", updates=25)
        assert [float(rate) for rate, _ in said] == [float(f"{rate:.4f}") for rate in plan.curve]
        assert float(said[-1][1]) > 2 * float(said[0][1])
        for stop in (7, 16, None):
            parts = reinforcement_loop.train(tmp_path / "parts.pt", stop=stop)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), parts.parameters(), strict=True))
