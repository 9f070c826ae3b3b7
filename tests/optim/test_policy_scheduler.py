"""The scheduler of a policy gives every update of any loop the planned rate, to the bit."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from trainer.lr import (
    ConfigError,
    Horizon,
    HyperSchedule,
    LRPolicy,
    compose,
    cosine,
    linear,
    linear_warmup,
    no_warmup,
    tied,
)
from trainer.optim.policy_scheduler import PolicyScheduler

TOTAL = 24


def policy(groups=None, **more):
    warmup, schedule = compose(Horizon(TOTAL, 2), lambda h: linear_warmup(h, duration=5), cosine)
    return LRPolicy(0.1, 2.0, warmup, schedule, groups or {"all": 1.0}, **more)


def optimizer_of(*names, lr=9.0, kind=torch.optim.SGD, **options):
    """An optimizer with a group of one weight for each name; None leaves the name out."""
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))], **({"name": name} if name else {})} for name in names or [None]
    ]
    return kind(groups, lr=lr, **options)


def seen_by(optimizer):
    """The rates in the groups at each step from now on."""
    seen = []
    optimizer.register_step_pre_hook(lambda made, *_: seen.append([group["lr"] for group in made.param_groups]))
    return seen


def train(optimizer, updates, scheduler=None):
    for _ in range(updates):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


@pytest.mark.parametrize("called", [True, False], ids=["step called", "step never called"])
@pytest.mark.parametrize(
    ("names", "groups"),
    [
        ((None,), {"all": 1.0}),
        ((None, None), {"body": 1.0, "head": 10.0}),
        (("head", "body"), {"head": 10.0, "body": 1.0}),
        (("x", "y", "z"), {"all": 1.0}),
        ((None,), {"decay": 1.0, "no_decay": 1.0}),
    ],
    ids=["one", "by order", "by name", "one curve for all", "equal curves for one"],
)
def test_a_plain_loop_gets_the_rate_of_every_update(names, groups, called):
    optimizer = optimizer_of(*names)
    known = policy({"body": 1.0, "head": 10.0} if "head" in names else groups)
    seen = seen_by(optimizer)
    scheduler = PolicyScheduler(optimizer, known, TOTAL)
    train(optimizer, TOTAL, scheduler if called else None)
    expected = [known.lrs(t) for t in range(TOTAL)]
    if "head" in names:
        expected = [row[::-1] for row in expected]
    assert seen == [(row * len(names))[: len(names)] for row in expected]
    assert scheduler.last_epoch == TOTAL


def test_schedules_of_single_groups_and_other_settings_follow_their_names():
    horizon = Horizon(TOTAL, 2)
    own = {"b": linear(horizon)}
    known = policy(
        {"a": 1.0, "b": 3.0}, own=own, hyper_schedules={"weight_decay": HyperSchedule(tied(horizon), [1, 2])}
    )
    optimizer = optimizer_of("b", "a")
    seen = []
    optimizer.register_step_pre_hook(
        lambda made, *_: seen.append([(group["lr"], group["weight_decay"]) for group in made.param_groups])
    )
    PolicyScheduler(optimizer, known)
    train(optimizer, TOTAL)
    wanted = [list(zip(known.lrs(t), known.values(t)["weight_decay"]))[::-1] for t in range(TOTAL)]
    assert seen == wanted


def test_momentum_is_beta1_of_adam_and_a_rate_in_a_tensor_is_filled():
    horizon = Horizon(TOTAL, 2)
    known = policy(hyper_schedules={"momentum": HyperSchedule(tied(horizon), [0.9])})
    optimizer = optimizer_of(kind=torch.optim.Adam, lr=torch.tensor(1.0))
    rate = optimizer.param_groups[0]["lr"]
    PolicyScheduler(optimizer, known)
    train(optimizer, 3)
    assert rate is optimizer.param_groups[0]["lr"]
    assert rate == torch.tensor(known.lr(3))
    assert optimizer.param_groups[0]["betas"] == (known.values(3)["momentum"][0], 0.999)


def test_a_step_that_a_gradient_scaler_skips_is_no_update():
    optimizer, known = optimizer_of(), policy()
    seen, scheduler = seen_by(optimizer), PolicyScheduler(optimizer, known, TOTAL)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    (parameter,) = optimizer.param_groups[0]["params"]
    for i in range(8):
        scaler.scale((parameter * (torch.inf if i in (2, 5) else 1.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        optimizer.zero_grad()
    assert seen == [known.lrs(t) for t in range(6)]


def test_a_resumed_loop_goes_on_at_its_update(tmp_path):
    known, first = policy(), optimizer_of()
    scheduler = PolicyScheduler(first, known, TOTAL)
    train(first, 7, scheduler)
    torch.save([first.state_dict(), scheduler.state_dict()], tmp_path / "state.pt")
    of_optimizer, of_scheduler = torch.load(tmp_path / "state.pt", weights_only=True)
    for order in (1, -1):
        resumed = optimizer_of()
        other = PolicyScheduler(resumed, known, TOTAL)
        for one, state in [(resumed, of_optimizer), (other, of_scheduler)][::order]:
            one.load_state_dict(state)
        seen = seen_by(resumed)
        train(resumed, TOTAL - 7, other)
        assert seen == [known.lrs(t) for t in range(7, TOTAL)]
    started = optimizer_of()
    seen = seen_by(started)
    PolicyScheduler(started, known, TOTAL, start=7)
    train(started, 2)
    assert seen == [known.lrs(7), known.lrs(8)]


def test_the_state_of_another_curve_is_refused_and_changes_nothing():
    scheduler = PolicyScheduler(optimizer_of(), policy(), TOTAL)
    train(scheduler.optimizer, 7)
    other = optimizer_of()
    fresh = PolicyScheduler(other, LRPolicy(0.5, 1.0, *compose(Horizon(9, 1), no_warmup, linear)), 9)
    with pytest.raises(ConfigError, match=r"of another curve: at update 7 .* start=7"):
        fresh.load_state_dict(scheduler.state_dict())
    assert fresh.last_epoch == 0


def test_past_its_end_the_last_rate_stays_and_one_warning_says_so():
    optimizer, known = optimizer_of(), policy()
    seen = seen_by(optimizer)
    PolicyScheduler(optimizer, known, TOTAL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(optimizer, TOTAL)
    with pytest.warns(UserWarning, match=f"the plan's {TOTAL} updates are over: .* stays at") as caught:
        train(optimizer, 5)
    assert len(caught) == 1
    assert seen[TOTAL:] == [known.lrs(TOTAL - 1)] * 5


def test_whatever_else_writes_the_rate_stops_the_loop_with_the_name_of_the_group():
    optimizer = optimizer_of("body", "head")
    scheduler = PolicyScheduler(optimizer, policy({"body": 1.0, "head": 2.0}))
    train(optimizer, 2, scheduler)
    torch.optim.lr_scheduler.StepLR(optimizer, 1).step()
    with pytest.raises(RuntimeError, match=r"group body has lr=.* where the plan says .* at update 2"):
        train(optimizer, 1)


def test_the_newest_scheduler_of_an_optimizer_replaces_the_one_before():
    optimizer = optimizer_of()
    PolicyScheduler(optimizer, policy())
    train(optimizer, 3)
    seen, again = seen_by(optimizer), policy()
    PolicyScheduler(optimizer, again)
    train(optimizer, 2)
    assert seen == [again.lrs(0), again.lrs(1)]


@pytest.mark.parametrize(
    ("optimizer", "known", "says"),
    [
        (optimizer_of(None, None), {"groups": {"a": 1.0, "b": 1.0, "c": 2.0}}, "groups a, b, c, but .* has 2"),
        (optimizer_of("x", "y"), {"groups": {"a": 1.0, "b": 2.0}}, r"has 2 \(x, y\)"),
        (
            torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.1, 0.2)]),
            {},
            "one curve, but the optimizer's groups have the rates 0.1, 0.2",
        ),
        (optimizer_of(), {"most_gain": 4.0}, "adascale"),
        (
            optimizer_of(),
            {"hyper_schedules": {"dropout": HyperSchedule(lambda t, base, share: base, [0.1])}},
            "SGD has no dropout",
        ),
    ],
)  # fmt: skip
def test_a_policy_that_does_not_fit_the_optimizer_is_refused(optimizer, known, says):
    with pytest.raises(ConfigError, match=says):
        PolicyScheduler(optimizer, policy(**known))


class Numbers(Dataset):
    """Inputs and labels by name, as transformers takes them."""

    def __len__(self):
        return 48

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {"inputs": torch.randn(3, generator=generator), "labels": torch.tensor(index % 2)}


class WithLoss(torch.nn.Module):
    """A net that gives its own loss."""

    def __init__(self):
        super().__init__()
        self.body, self.head = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)

    def forward(self, inputs, labels):
        logits = self.head(self.body(inputs).tanh())
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    def groups(self):
        return [{"params": self.body.parameters(), "name": "body"}, {"params": self.head.parameters(), "name": "head"}]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_accelerate_gets_the_rate_of_every_update(accumulate, monkeypatch):
    accelerate = pytest.importorskip("accelerate")
    torch.manual_seed(0)
    net, known = WithLoss(), policy({"body": 1.0, "head": 10.0})
    optimizer = torch.optim.AdamW(net.groups(), lr=1.0)
    seen = seen_by(optimizer)
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    net, optimizer, loader, scheduler = accelerator.prepare(
        net, optimizer, DataLoader(Numbers(), 2), PolicyScheduler(optimizer, known, TOTAL)
    )
    # as on four processes: Accelerate then steps the scheduler four times after each update
    monkeypatch.setitem(accelerate.state.PartialState._shared_state, "num_processes", 4)
    calls, step = [], PolicyScheduler.step
    monkeypatch.setattr(PolicyScheduler, "step", lambda self, *given: (calls.append(1), step(self, *given)))
    for batch in loader:
        with accelerator.accumulate(net):
            accelerator.backward(net(**batch)["loss"])
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert len(seen) == 24 // accumulate
    assert len(calls) == len(seen) * (4 + 1)  # the hook in the optimizer is the fifth
    assert seen == [known.lrs(t) for t in range(len(seen))]


def test_the_trainer_of_transformers_gets_the_rate_of_every_update_and_resumes(tmp_path):
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    known, seen = policy({"body": 1.0, "head": 10.0}), []

    def fit(steps, resume=None):
        net = WithLoss()
        optimizer = torch.optim.AdamW(net.groups(), lr=1.0)
        optimizer.register_step_pre_hook(lambda made, *_: seen.append([g["lr"] for g in made.param_groups]))
        arguments = transformers.TrainingArguments(
            str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=steps, save_steps=9,
            use_cpu=True, report_to=[], disable_tqdm=True, logging_steps=100,
        )  # fmt: skip
        trainer = transformers.Trainer(
            net, arguments, train_dataset=Numbers(), optimizers=(optimizer, PolicyScheduler(optimizer, known, TOTAL))
        )
        trainer.train(resume_from_checkpoint=resume)

    fit(9)
    fit(TOTAL, str(tmp_path / "checkpoint-9"))
    assert seen == [known.lrs(t) for t in range(TOTAL)]
