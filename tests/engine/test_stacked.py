"""Stacked training: every member equals its lone run, breaks alone, and falls back where it cannot be stacked."""

import json
import math
import warnings

import pytest
import torch

from trainer.config.run_summary import summary_of_run
from trainer.engine.guard import Diverged
from trainer.engine.stacked_optimizers import RULES
from trainer.run import fit
from trainer.tools.siblings import sibling, why_no_siblings
from trainer.tools.stacked import Stack, score, why_alone

QUIET = ("trainer.accelerator=cpu", "trainer.threads=1", "model.hidden=[16]", "callbacks=none", "logger=none")
SHORT = ("trainer.duration=60", "trainer.validate=60")
RATES = ((1e-3, 0), (1e-2, 0), (3e-2, 1), (0.1, 2))


@pytest.fixture
def members(assembled):
    """The parts of runs with these rates and seeds."""

    def make(*words, rates=RATES, folder="stacked"):
        return [
            assembled(*QUIET, *SHORT, *words, f"optimizer.lr={rate}", f"seed={seed}", folder=f"{folder}{i}")
            for i, (rate, seed) in enumerate(rates)
        ]

    return make


def lone_losses(parts):
    """The losses of all updates of a run that trains alone, and how it ended."""
    losses, add = [], parts.module.metric_buffer.add

    def noted(t, loss, *others, **more):
        losses.append(loss.item())
        add(t, loss, *others, **more)

    parts.module.metric_buffer.add = noted
    try:
        fit(parts)
    except Diverged as error:
        return losses, error
    return losses, None


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "words",
    [
        ("optimizer=sgd",),
        ("optimizer=momentum", "trainer.clip=0.5"),
        ("optimizer=nesterov", "optimizer.weight_decay=0.01", "schedule=cosine_warmup"),
        ("optimizer=adam", "optimizer.weight_decay=0.01"),
        ("optimizer=adamw", "optimizer.weight_decay=0.1", "schedule=linear"),
    ],
)
def test_each_member_equals_its_lone_run(members, words):
    together, alone = members(*words), members(*words, folder="alone")
    assert why_alone(together) == ""
    stack = Stack(together)
    assert stack.fit() == [None] * len(together)
    rows = torch.stack(stack.losses).T.tolist()
    for parts, lone, row in zip(together, alone, rows):
        losses, _ = lone_losses(lone)
        score(parts)
        assert max(abs(a - b) for a, b in zip(row, losses, strict=True)) < 1e-6
        assert math.isclose(parts.checkpointing.best["value"], lone.checkpointing.best["value"], abs_tol=1e-5)
        assert parts.module.clock.t == 60
        assert parts.module.recent["lr"] == lone.module.recent["lr"]


def test_a_transformer_with_the_attention_of_torch_equals_its_lone_run(assembled, tmp_path):
    """The attention of torch has kernels that are not batched, and one that is."""
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog, and once more.\n" * 40)
    net = ("model=gpt", "model.layers=1", "model.heads=2", "model.width=16", "model.dropout=0", "optimizer=adamw")
    words = ("data=text", f"data.path={tmp_path / 'text.txt'}", "data.context=16", "task=language_modelling", *net)
    cpu = [word for word in QUIET if not word.startswith("model")]
    together, alone = (
        [assembled(*cpu, *SHORT, *words, f"optimizer.lr={lr}", folder=f"{kind}{lr}") for lr in (1e-3, 1e-2)]
        for kind in ("stacked", "alone")
    )
    assert why_alone(together) == ""
    stack = Stack(together)
    assert stack.fit() == [None, None]
    for lone, row in zip(alone, torch.stack(stack.losses).T.tolist()):
        losses, _ = lone_losses(lone)
        assert losses[-1] < losses[0] - 0.2
        assert max(abs(a - b) for a, b in zip(row, losses, strict=True)) < 1e-6


def test_in_double_precision_the_weights_agree(members):
    words = ("optimizer=adamw", "trainer.precision=64-true")
    together, alone = members(*words), members(*words, folder="alone")
    Stack(together).fit()
    for parts, lone in zip(together, alone):
        fit(lone)
        pairs = zip(parts.module.net.parameters(), lone.module.net.parameters())
        assert max((a - b).abs().max().item() for a, b in pairs) < 1e-10


def test_a_member_that_breaks_harms_no_other(members):
    rates = ((0.05, 0), (1e30, 0), (0.1, 1))
    words = ("optimizer=momentum", "lint.ignore=[huge-lr]")
    with_it = members(*words, rates=rates)
    failures = Stack(with_it).fit()
    without = members(*words, rates=(rates[0], rates[2]), folder="without")
    Stack(without).fit()
    assert [failure is None for failure in failures] == [True, False, True]
    _, lone = lone_losses(members(*words, rates=rates[1:2], folder="lone")[0])
    assert failures[1].update == lone.update
    for parts, other in zip((with_it[0], with_it[2]), without):
        pairs = list(zip(parts.module.net.parameters(), other.module.net.parameters()))
        assert all(torch.isfinite(a).all() for a, _ in pairs)
        assert max((a - b).abs().max().item() for a, b in pairs) < 1e-4


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("optimizer=sgd", "model.norm=batch"), "BatchNorm1d, which keeps running statistics"),
        (("optimizer=sgd", "model.dropout=0.1"), "dropout"),
        (("optimizer=lion",), "Lion has no stacked rule"),
        (("optimizer=sgd", "trainer.accumulate=2"), "accumulate"),
        (("optimizer=sgd", "average=ema"), "averaged"),
        (("optimizer=sgd", "trainer.agc=0.01"), "more than trainer.clip"),
        (("optimizer=adamw", "hyper_schedule=weight_decay_cosine"), "follows a schedule"),
    ],
)
def test_what_cannot_be_stacked_says_why(members, words, why):
    assert why in why_alone(members(*words, rates=RATES[:2]))


def test_runs_that_differ_in_more_than_numbers_are_not_stacked(members):
    (one,) = members("optimizer=sgd", rates=RATES[:1])
    (other,) = members("optimizer=sgd", "data.label_noise=0.5", rates=RATES[:1], folder="other")
    (wide,) = members("optimizer=sgd", "task.loss.label_smoothing=0.0", rates=RATES[:1], folder="wide")
    assert "differ in more than numbers" in why_alone([one, other])
    assert "differ in more than numbers" in why_alone([one, wide])


@pytest.mark.parametrize("kind", sorted(RULES, key=lambda kind: kind.__name__))
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_rule_equals_the_optimizer_of_torch(kind, decay):
    torch.manual_seed(0)
    count, size = 3, 7
    weights = torch.randn(count, size, dtype=torch.float64)
    own = [{"momentum": m, "weight_decay": decay * (m + 0.1), "lr": 0.1 * (m + 0.1)} for m in (0.0, 0.5, 0.9)]
    if kind is not torch.optim.SGD:
        own = [{"betas": (one.pop("momentum"), 0.99), **one} for one in own]
    lone = [torch.nn.Parameter(row.clone()) for row in weights]
    optimizers = [kind([parameter], **options) for parameter, options in zip(lone, own)]
    rule = RULES[kind]([one.param_groups[0] for one in optimizers], weights)
    for t in range(25):
        rates = torch.tensor([[one["lr"] * (1 + t % 5)] for one in own], dtype=torch.float64)
        gradients = torch.randn_like(weights)
        for parameter, optimizer, gradient, rate in zip(lone, optimizers, gradients, rates):
            parameter.grad, optimizer.param_groups[0]["lr"] = gradient.clone(), rate.item()
            optimizer.step()
        rule(weights, gradients, rates)
        assert torch.allclose(weights, torch.stack([one.detach() for one in lone]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "words", [("optimizer=adamw", "schedule=cosine_warmup"), ("optimizer=nesterov", "schedule=wsd")]
)
def test_a_sibling_is_the_run_that_is_built(members, words, tmp_path):
    first, built = members(*words, rates=((0.01, 3), (0.037, 3)))
    assert why_no_siblings(first) == ""
    made = sibling(first, 0.037, built.resolved.settings.name, built.folder)
    assert made.resolved.settings == built.resolved.settings
    assert made.resolved.history == built.resolved.history
    assert summary_of_run(made.resolved) == summary_of_run(built.resolved)
    policies = made.module.spec.policy, built.module.spec.policy
    assert [policies[0].lrs(t) for t in range(60)] == [policies[1].lrs(t) for t in range(60)]
    pairs = zip(made.module.net.parameters(), built.module.net.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert made.module.net is not first.module.net
    stack, lone = Stack([first, made]), Stack([built])
    assert stack.fit() == [None, None]
    assert lone.fit() == [None]
    rows = torch.stack(stack.losses)[:, 1], torch.stack(lone.losses)[:, 0]
    assert (rows[0] - rows[1]).abs().max() < 1e-6


def test_a_run_whose_other_numbers_follow_the_rate_has_no_siblings(members):
    scaled = ("optimizer=sgd", "scaling=linear", "scaling.base_batch_size=16")
    assert "follow the rate" in why_no_siblings(members(*scaled, rates=RATES[:1])[0])
    for reference in ("${optimizer.lr}", "${.lr}"):
        tied = ("optimizer=adamw", f"optimizer.weight_decay={reference}")
        assert "follows the rate" in why_no_siblings(members(*tied, rates=RATES[:1], folder=f"tied{reference}")[0])


def test_the_log_of_a_member_is_that_of_its_lone_run(assembled, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = (*QUIET[:-1], *SHORT, "optimizer=adamw")
    together = [assembled(*words, f"optimizer.lr={rate}", folder=f"s{rate}") for rate in (0.01, 0.02)]
    lone = assembled(*words, "optimizer.lr=0.02", folder="lone")
    Stack(together).fit()
    score(together[1])
    fit(lone)
    logs = []
    for parts in (together[1], lone):
        for logger in parts.trainer.loggers:
            logger.close()
        log = EventAccumulator(str(parts.folder), size_guidance={"scalars": 0})
        logs.append(log.Reload())
    tags = set(logs[1].Tags()["scalars"]) - {"train/samples_per_second"}
    assert {"train/loss", "train/grad_norm", "lr/decay", "val/loss"} <= tags <= set(logs[0].Tags()["scalars"])
    for tag in tags:
        one, other = ([(event.step, event.value) for event in log.Scalars(tag)] for log in logs)
        assert [step for step, _ in one] == [step for step, _ in other], tag
        assert all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5) for (_, a), (_, b) in zip(one, other)), tag
    assert json.dumps(together[1].module.recent)


class Unbatched(torch.nn.Module):
    """A loss whose operation torch.func does not batch, and says so."""

    def forward(self, outputs, targets):
        told = "There is a performance drop because we have not yet implemented the batching rule for aten::x. Please"
        warnings.warn(told, UserWarning, stacklevel=1)
        return torch.nn.functional.cross_entropy(outputs, targets)


def test_what_torch_would_run_one_after_another_is_not_stacked(members):
    parts = members("optimizer=sgd", rates=RATES[:2])
    stack = Stack(parts)
    stack.nets.step.__dict__["loss"] = Unbatched()
    with pytest.raises(UserWarning, match="^torch.func does not batch aten::x$"):
        stack.fit()
