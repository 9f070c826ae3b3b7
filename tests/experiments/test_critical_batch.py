"""The critical batch: its parts against a second source, and the whole from end to end."""

from statistics import median

import pytest
import torch

from data.order import mix
from experiments import critical_batch, record
from experiments.critical import hyperbola, race, trail
from models.mlp import MLP
from trainer.cli.run_cli import run_cli
from trainer.lr import ConfigError
from trainer.tools.report.claims import read_claims


@pytest.fixture(scope="module")
def problem():
    return race.Problem.digits()


def alone(problem, seed, lr, batches):
    """One net, trained by torch's own SGD on the batches of its seed."""
    torch.manual_seed(mix(seed))
    net = MLP(64, 10, [32])
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for chosen in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(problem.inputs[chosen]), problem.targets[chosen]).backward()
        optimizer.step()
    return net


def test_nets_in_a_stack_train_as_each_would_alone(problem):
    lrs, seeds = [0.1, 0.5], [3, 4, 5]
    weights = {k: w.repeat(2, *[1] * (w.dim() - 1)) for k, w in problem.weights(seeds).items()}
    rates, draws, seen = torch.tensor(lrs).repeat_interleave(3), problem.batches(16, seeds), []
    for _ in range(20):
        seen.append(next(draws))
        chosen = seen[-1].repeat(2, 1)
        weights = problem.step(weights, rates, problem.inputs[chosen], problem.targets[chosen])
    losses = problem.full_losses(weights)
    for i, (lr, seed) in enumerate((lr, seed) for lr in lrs for seed in seeds):
        net = alone(problem, seed, lr, [batch[seeds.index(seed)] for batch in seen])
        loss = torch.nn.functional.cross_entropy(net(problem.inputs), problem.targets)
        assert torch.allclose(net.layers[1].weight, weights["layers.1.weight"][i], atol=1e-5)
        assert losses[i].item() == pytest.approx(loss.item(), rel=1e-4)


def arrival(problem, seed, lr, target):
    """The first update before which the loss of one net, trained alone, is below the target."""
    torch.manual_seed(mix(seed))
    net, draws, count = MLP(64, 10, [32]), problem.batches(64, [seed]), 0
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    while torch.nn.functional.cross_entropy(net(problem.inputs), problem.targets).item() >= target:
        chosen, count = next(draws)[0], count + 1
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(problem.inputs[chosen]), problem.targets[chosen]).backward()
        optimizer.step()
    return count


def test_the_updates_to_a_loss_are_those_at_which_each_net_alone_reaches_it(problem):
    found = race.race(problem, 64, [0.25, 0.5, 64.0], [0, 1, 2], [1.0, 0.6], 60)
    assert found[0.6][64.0] == float("inf")
    for lr in (0.25, 0.5):
        counts = [arrival(problem, seed, lr, 1.0) for seed in range(3)]
        assert median(counts) - 1 <= found[1.0][lr] <= median(counts)
        assert found[1.0][lr] < found[0.6][lr]


def test_where_the_loss_is_read_now_and_then_the_updates_between_count(problem):
    counts = [arrival(problem, seed, 0.01, 1.2) for seed in range(3)]
    assert median(counts) > 150  # read at every third update or less
    assert race.race(problem, 64, [0.01], range(3), [1.2], 400)[1.2][0.01] == pytest.approx(median(counts), abs=1.5)


def test_the_best_rate_lies_between_those_tried_and_at_one_of_them_beside_a_rate_that_fails():
    curve = {2.0**k: 10 * 2 ** ((k - 0.25) ** 2) for k in range(-3, 4)}
    assert race.best(curve).lr == pytest.approx(2**0.25)
    assert race.best({0.5: 20.0, 1.0: 10.0, 2.0: float("inf")}) == race.Best(10.0, 1.0)
    assert race.best({0.5: 5.0, 1.0: 10.0}) == race.Best(5.0, 0.5)


@pytest.mark.parametrize("power", [1, -1])
def test_a_hyperbola_is_found_again(power):
    points = {2**k: 7 * (1 + 100 / 2**k) ** power for k in range(1, 11)}
    found = hyperbola.fit(points, power)
    assert found.batch == pytest.approx(100, rel=0.01)
    assert found(found.batch) == pytest.approx(2.0**power * found.limit)
    assert found.error < 0.01
    assert hyperbola.free({b: (1 + 100 / b) ** -0.5 for b in points}).power == pytest.approx(-0.5, abs=0.03)
    with pytest.raises(ConfigError, match="three points or more"):
        hyperbola.fit({**points, 2: float("inf")}, power)


def test_the_noise_scale_is_that_of_every_sample_and_a_mis_stated_batch_makes_it_wrong_by_as_much(problem):
    weights = {name: value[0] for name, value in problem.weights([1]).items()}
    net = alone(problem, 1, 0.1, [])
    rows = []
    for i in range(len(problem.targets)):
        loss = torch.nn.functional.cross_entropy(net(problem.inputs[i : i + 1]), problem.targets[i : i + 1])
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(net.parameters()))]).double())
    each = torch.stack(rows)
    square = each.mean(0).square().sum()
    exact = ((each - each.mean(0)).square().sum() / len(each) / square).item()
    assert trail.exact(problem, weights) == pytest.approx(exact, rel=1e-5)
    right, wrong = trail.estimates(problem, weights, seed=0, factor=8)
    assert right.low <= exact <= right.high
    assert wrong.noise == pytest.approx(8 * right.noise, rel=1e-12)


def test_a_run_that_does_not_arrive_is_refused(problem):
    with pytest.raises(ConfigError, match=r"seed 0 has not reached a loss of 0.01 in 3 updates"):
        trail.Run(batch=64, lr=0.1, target=0.01, every=2, factor=8, limit=3).points(problem, 0)


def test_the_critical_batch_runs_from_end_to_end(tmp_path, monkeypatch):
    short = {
        "BATCHES": [16, 64, 256],
        "LRS": [2.0**k for k in range(-3, 1)],
        "TARGETS": [1.2, 0.9, 0.7],
        "MIDDLE": 0.9,
    }
    for name, value in short.items():
        monkeypatch.setattr(critical_batch, name, value)
    code = run_cli(lambda: critical_batch.main(["--seeds", "1", "--jobs", "1", "--out", str(tmp_path)]))
    found = read_claims(tmp_path / "critical_batch")
    assert code == (0 if all(one.is_as_it_must for one in found.claims) else 1)  # so short a run need not show anything
    assert (tmp_path / "critical_batch" / "critical_batch.png").read_bytes().startswith(b"\x89PNG")
    assert found.more["cost"]["runs"] == 3 * 4 + 1
    assert sum(one.kind == "control" for one in found.claims) == 3
    assert {one.text: one.holds for one in found.claims}["run mean of the estimator, relative error"]


def test_the_thresholds_of_the_critical_batch_are_those_that_were_frozen():
    kept = read_claims(record.DOCS / "critical_batch").claims
    thresholds = [*[3.0, 3.0, 0.25, "10 to 100"] * 3, 1, 0.1, 0.8]
    assert [one.threshold for one in kept] == thresholds
    numbers = (critical_batch.APART, critical_batch.ERROR, critical_batch.RATES, critical_batch.ESTIMATE)
    assert (*numbers, critical_batch.HOLD, critical_batch.FACTOR) == (3.0, 0.25, (10.0, 100.0), 0.10, 0.80, 8)
