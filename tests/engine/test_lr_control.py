"""A user's own LightningModule keeps automatic optimization and gets the same policy, applied and proved."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from trainer.engine.lr_control import LRControl
from trainer.lr import Horizon, LRPolicy, compose, cosine, linear_warmup


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
def test_a_scheduler_of_the_module_cannot_change_the_rate_that_is_applied():
    module, rates = Theirs(scheduler=True), policy(40, {"body": 1.0, "head": 10.0})
    fit(module, rates)
    assert module.seen == [rates.lrs(t) for t in range(40)]


@pytest.mark.filterwarnings("ignore")
def test_a_policy_for_other_groups_than_the_optimizer_has_is_refused():
    with pytest.raises(ValueError, match="knows the groups all, but the optimizer has 2"):
        fit(Theirs(), policy(40, {"all": 1.0}))


@pytest.mark.filterwarnings("ignore")
def test_a_module_that_optimizes_by_hand_is_told_to_call_write_itself():
    module = Theirs()
    module.automatic_optimization = False
    with pytest.raises(ValueError, match="call LRControl.write"):
        fit(module, policy(40, {"body": 1.0, "head": 1.0}))
