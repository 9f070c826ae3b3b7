"""A user's own LightningModule keeps automatic optimization and gets the same policy, applied and proved."""

import csv
import importlib
import json
import warnings

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from trainer.engine.lr_control import LRControl
from trainer.lr import ConfigError, Horizon, LRPolicy, Plan, compose, cosine, linear_warmup


class Theirs(pl.LightningModule):
    """A user's module as the Lightning docs teach it, with two parameter groups."""

    def __init__(self, scheduler=False):
        super().__init__()
        self.net, self.head, self.scheduler = torch.nn.Linear(4, 3), torch.nn.Linear(3, 1), scheduler
        self.seen = []

    def training_step(self, batch, batch_idx):
        return self.head(self.net(batch[0])).square().mean()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD([{"params": self.net.parameters()}, {"params": self.head.parameters()}], lr=9.0)
        optimizer.register_step_post_hook(lambda opt, *_: self.seen.append([g["lr"] for g in opt.param_groups]))
        if self.scheduler:
            return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1), "interval": "step"}]
        return optimizer


def fit(module, policy, accumulate=1):
    loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", accumulate_grad_batches=accumulate, callbacks=[LRControl(policy)],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)


def policy(updates, groups):
    return LRPolicy(0.1, 2.0, *compose(Horizon(updates, 2), lambda h: linear_warmup(h, duration=5), cosine), groups)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("accumulate", "updates"), [(1, 40), (4, 10)])
def test_every_update_of_a_foreign_module_uses_the_planned_rate(accumulate, updates):
    module, rates = Theirs(), policy(updates, {"body": 1.0, "head": 10.0})
    fit(module, rates, accumulate)
    assert module.seen == [rates.lrs(t) for t in range(updates)]


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_of_the_module_is_named_and_has_no_effect():
    module, rates = Theirs(scheduler=True), policy(40, {"body": 1.0, "head": 10.0})
    with pytest.warns(UserWarning, match=r"StepLR of Theirs.configure_optimizers has no effect"):
        fit(module, rates)
    assert module.seen == [rates.lrs(t) for t in range(40)]


@pytest.mark.filterwarnings("ignore")
def test_a_policy_for_other_groups_than_the_optimizer_has_is_refused():
    with pytest.raises(ConfigError, match="knows the groups a, b, c, but the optimizer has 2"):
        fit(Theirs(), policy(40, {"a": 1.0, "b": 2.0, "c": 1.0}))


@pytest.mark.filterwarnings("ignore")
def test_one_curve_serves_all_groups_of_an_optimizer():
    module, rates = Theirs(), policy(40, {"all": 1.0})
    fit(module, rates)
    assert module.seen == [rates.lrs(t) * 2 for t in range(40)]


@pytest.mark.filterwarnings("ignore")
def test_a_module_that_optimizes_by_hand_is_told_to_call_write_itself():
    module = Theirs()
    module.automatic_optimization = False
    with pytest.raises(ValueError, match="call LRControl.write"):
        fit(module, policy(40, {"body": 1.0, "head": 1.0}))


class ByHand(Theirs):
    """Two optimizers, stepped by hand."""

    def __init__(self, plan):
        super().__init__()
        self.automatic_optimization, self.plan, self.seen = False, plan, {"net": [], "head": []}

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        for i, optimizer in enumerate(self.optimizers()):
            if i == 0 or batch_idx % 2:
                optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        made = []
        for name in self.seen:
            optimizer = torch.optim.SGD(getattr(self, name).parameters(), lr=9.0)
            record = lambda opt, *_, to=self.seen[name]: to.append(opt.param_groups[0]["lr"])  # noqa: E731
            optimizer.register_step_pre_hook(record)
            if self.plan is not None:
                self.plan.scheduler(optimizer)
            made.append(optimizer)
        return made


@pytest.mark.filterwarnings("ignore")
def test_several_optimizers_by_hand_are_refused_with_a_remedy_that_works():
    import cadence

    with pytest.raises(ConfigError, match=r"ByHand uses manual optimization with 2 optimizers.*plan.scheduler"):
        fit(ByHand(None), policy(40, {"all": 1.0}))
    plan, module = cadence.plan("schedule=linear", "warmup=none", updates=40), ByHand(None)
    module.plan = plan
    trainer_of(pl, []).fit(module, DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=2))
    assert module.seen == {"net": plan.curve.tolist(), "head": plan.curve[:20].tolist()}


def trainer_of(package, callbacks, **options):
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return package.Trainer(
        **({"max_epochs": 2, "accelerator": "cpu", "logger": False, "callbacks": callbacks} | quiet | options)
    )


def theirs_of(package):
    """The same module as a subclass of a Lightning package's LightningModule."""
    kept = ("__init__", "training_step", "configure_optimizers")
    body = {name: Theirs.__dict__[name] for name in kept[1:]}

    def __init__(self):
        package.LightningModule.__init__(self)
        self.net, self.head, self.scheduler, self.seen = torch.nn.Linear(4, 3), torch.nn.Linear(3, 1), False, []

    return type("Theirs", (package.LightningModule,), {**body, "__init__": __init__})()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_their_trainer_logs_each_applied_rate_and_the_plan(name, accumulate, tmp_path):
    pytest.importorskip(name)
    package, loggers = importlib.import_module(name), importlib.import_module(f"{name}.loggers")
    updates = 40 // accumulate
    known = policy(updates, {"body": 1.0, "head": 10.0})
    plan = Plan(known, Horizon(updates, 2))
    module, logger = theirs_of(package), loggers.CSVLogger(tmp_path, flush_logs_every_n_steps=7)
    loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=2)
    callbacks = [LRControl(known, plan=plan)]
    trainer_of(package, callbacks, logger=logger, accumulate_grad_batches=accumulate).fit(module, loader)
    assert module.seen == [known.lrs(t) for t in range(updates)]
    logger.save()
    rows = list(csv.DictReader((tmp_path / "lightning_logs/version_0/metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(updates))
    assert [[float(row["lr/body"]), float(row["lr/head"])] for row in rows] == module.seen
    written = json.loads((tmp_path / "lightning_logs/version_0/plan.json").read_text())
    assert written == json.loads(json.dumps(plan.summary()))


@pytest.mark.filterwarnings("ignore")
def test_past_the_end_of_the_plan_the_last_rate_stays_and_is_said_once():
    known, module = policy(30, {"body": 1.0, "head": 10.0}), Theirs()
    loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=2)
    with pytest.warns(UserWarning, match="the plan's 30 updates are over") as caught:
        trainer_of(pl, [LRControl(known, plan=Plan(known, Horizon(30, 2)))]).fit(module, loader)
    assert len([one for one in caught if "are over" in str(one.message)]) == 1
    assert module.seen == [known.lrs(min(t, 29)) for t in range(40)]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are over")
        fit(Theirs(), known)  # without a plan the length is not known


@pytest.mark.filterwarnings("ignore")
def test_a_callback_of_a_plan_resumes_from_their_checkpoint(tmp_path):
    import cadence

    plan = cadence.plan("optimizer=sgd", "schedule=cosine", "warmup=linear", "warmup.duration=4", updates=40)
    loader = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=2)
    first, second = Theirs(), Theirs()
    options = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    trainer = trainer_of(pl, [plan.callback()], max_epochs=1, **options)
    trainer.fit(first, loader)
    trainer.save_checkpoint(tmp_path / "theirs.ckpt")
    trainer_of(pl, [plan.callback()], **options).fit(second, loader, ckpt_path=tmp_path / "theirs.ckpt")
    assert first.seen + second.seen == [[lr, lr] for lr in plan.curve]
