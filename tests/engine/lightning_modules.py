"""LightningModules as users write them, for configs of tests; `foreign_modules` has them of `lightning.pytorch`."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy


class Classifier(pl.LightningModule):
    """An encoder and a head, a second loss, metrics as values and as objects, and hooks that log."""

    def __init__(self, width: int = 16, lr: float = 0.01, beta: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(64, width), nn.Tanh())
        self.decoder, self.head = nn.Linear(width, 64), nn.Linear(width, 10)
        self.train_accuracy, self.accuracy = (
            MulticlassAccuracy(10, average="micro"),
            MulticlassAccuracy(10, average="micro"),
        )

    def forward(self, inputs):
        return self.head(self.encoder(inputs.flatten(1)))

    def _losses(self, batch):
        inputs, targets = batch[0].flatten(1), batch[1]
        code = self.encoder(inputs)
        return functional.cross_entropy(self.head(code), targets), functional.mse_loss(self.decoder(code), inputs)

    def training_step(self, batch, batch_idx):
        classes, rebuilt = self._losses(batch)
        loss = classes + self.hparams.beta * rebuilt
        self.train_accuracy(self(batch[0]), batch[1])
        self.log_dict({"train_loss": loss, "rebuilt": rebuilt}, prog_bar=True)
        self.log("train/accuracy", self.train_accuracy, on_step=True, on_epoch=True)
        self.log("mean_loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.log("head_gradient", self.head.weight.grad.norm())

    def validation_step(self, batch, batch_idx):
        classes, rebuilt = self._losses(batch)
        self.accuracy(self(batch[0]), batch[1])
        self.log("val_loss", classes)
        self.log("val_rebuilt", rebuilt, prog_bar=True)
        self.log("val_acc", self.accuracy)

    def on_validation_epoch_end(self):
        self.log("weights", self.head.weight.norm())

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self._losses(batch)[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)


class Autoencoder(pl.LightningModule):
    """One loss in a dict, hooks that change the net; a mean of the weights as a buffer."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, width), nn.Linear(width, 64)
        self.register_buffer("mean", torch.zeros(width, 64))
        self.temperature, self.calls = 1.0, []

    def on_train_epoch_start(self):
        self.temperature = 1.0 / (1 + self.current_epoch)

    def training_step(self, batch):
        inputs = batch[0].flatten(1)
        rebuilt = self.decoder(torch.tanh(self.encoder(inputs) / self.temperature))
        loss = functional.mse_loss(rebuilt, inputs)
        return {"loss": loss, "seen": len(inputs)}

    def on_after_backward(self):
        for parameter in self.decoder.parameters():
            parameter.grad.mul_(0.5)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        assert outputs["seen"] == len(batch[0])
        with torch.no_grad():
            self.mean.lerp_(self.encoder.weight, 1 / (1 + self.global_step))
            self.encoder.weight.clamp_(-0.5, 0.5)

    def on_train_epoch_end(self):
        with torch.no_grad():
            self.decoder.bias.mul_(0.9)

    def validation_step(self, batch, batch_idx):
        inputs = batch[0].flatten(1)
        return functional.mse_loss(self.decoder(torch.tanh(self.encoder(inputs))), inputs)


class OwnStep(Classifier):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        raise AssertionError("it is ignored")


class OwnLoop(Classifier):
    def training_step(self, dataloader_iter):
        return self._losses(next(dataloader_iter)[0])[0]


class Skipping(Classifier):
    def training_step(self, batch, batch_idx):
        return None


class Late(Classifier):
    def setup(self, stage):
        self.layer = nn.Linear(2, 2)


class Counting(Autoencoder):
    seen = 0

    def on_train_batch_start(self, batch, batch_idx):
        assert batch_idx == self.global_step % self.trainer.num_training_batches
        self.seen += 1

    def on_save_checkpoint(self, checkpoint):
        checkpoint["seen"] = self.seen

    def on_load_checkpoint(self, checkpoint):
        assert checkpoint["state_dict"].keys() == self.state_dict().keys()
        self.seen = checkpoint["seen"]


class TwoRates(Classifier):
    """Two groups with rates and numbers of their own; a schedule, if asked for; the rate of the update in its log."""

    scheduled = False

    def training_step(self, batch, batch_idx):
        self.log("read_lr", self.optimizers().param_groups[1]["lr"])
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self):
        groups = [
            {"params": [*self.encoder.parameters(), *self.decoder.parameters()], "lr": 3e-4},
            {"params": self.head.parameters(), "lr": 0.1 * 7e-3, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, 0.95), weight_decay=0.1)
        if not self.scheduled:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-3, 7e-3], total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Impatient(TwoRates):
    """Writes a rate of its own."""

    def on_train_batch_start(self, batch, batch_idx):
        self.optimizers().param_groups[1]["lr"] = 0.5


class Scheduled(TwoRates):
    scheduled = True


class Adversarial(pl.LightningModule):
    """Two nets against each other, on points made of the inputs; the generator steps in each `every`-th batch."""

    every = 1

    def __init__(self, toggled: bool = True):
        super().__init__()
        self.automatic_optimization, self.toggled = False, toggled
        self.generator = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 64))
        self.critic = nn.Sequential(nn.Linear(64, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))

    def training_step(self, batch, batch_idx):
        inputs = batch[0].flatten(1)
        generator, critic = self.optimizers()
        made = self.generator(inputs[:, 20:28])
        real, fake = self.critic(inputs), self.critic(made.detach())
        loss = functional.softplus(-real).mean() + functional.softplus(fake).mean()
        critic.zero_grad()
        self.manual_backward(loss)
        critic.step()
        self.log("critic", loss, prog_bar=True)
        if batch_idx % self.every == 0:
            if self.toggled:
                self.toggle_optimizer(generator)
            fooled = functional.softplus(-self.critic(made)).mean()
            generator.zero_grad()
            self.manual_backward(fooled)
            generator.step()
            self.log("fooled", fooled)
            if self.toggled:
                self.untoggle_optimizer(generator)

    def validation_step(self, batch, batch_idx):
        inputs = batch[0].flatten(1)
        self.log("val_distance", (self.generator(inputs[:, 20:28]).mean(0) - inputs.mean(0)).norm())

    def configure_optimizers(self):
        generator = torch.optim.Adam(self.generator.parameters(), lr=2e-3, betas=(0.5, 0.9))
        return generator, torch.optim.Adam(self.critic.parameters(), lr=1e-3, betas=(0.5, 0.9))


class Patient(Adversarial):
    every = 3


class Annealed(Adversarial):
    """Steps the schedulers of both optimizers itself."""

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        first, second = self.lr_schedulers()
        first.step()
        second.step()

    def configure_optimizers(self):
        optimizers = list(super().configure_optimizers())
        return optimizers, [torch.optim.lr_scheduler.StepLR(one, 3) for one in optimizers]


class Careless(Adversarial):
    """Forgets to say that it optimizes by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = True


class Rehearsed(Classifier):
    """Whatever a validation may change in a module: metrics, lists, tensors, a generator; and it logs by itself."""

    def __init__(self, **options):
        super().__init__(**options)
        self.losses, self.total = [], torch.zeros(())
        self.draws = torch.Generator().manual_seed(0)
        self.told = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss + 1e-3 * torch.rand((), generator=self.draws) * self.head.weight.sum() + 0 * self.total

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.losses.append(torch.rand((), generator=self.draws))
        self.total += 1
        self.told.append(self.trainer.sanity_checking)
        self.logger.log_metrics({"by_hand": 1.0})

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("count", float(len(self.losses)))


class WrongShape(Classifier):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(self(batch[0])[:, :3].flatten(), batch[1]))
