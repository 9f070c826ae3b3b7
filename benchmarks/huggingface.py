"""The benchmark's work in transformers.Trainer, for those who have transformers and accelerate installed."""

import importlib.util
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.loops import Outcome, Spent, Work

if importlib.util.find_spec("accelerate") is None:  # the Trainer itself would raise only when it is used
    raise ImportError("transformers.Trainer needs accelerate")


class Batches:
    """The batches of the work as the dictionaries that transformers expects."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __len__(self) -> int:
        return len(self.work)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return ({"inputs": inputs, "targets": targets} for inputs, targets in self.work)


class Peer(Trainer):
    """A Trainer that takes its batches from memory, without a DataLoader."""

    def get_train_dataloader(self) -> Any:
        return self.train_dataset

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **options: Any) -> Tensor:
        return cross_entropy(model(inputs["inputs"]), inputs["targets"])


class Stopwatch(TrainerCallback):
    """Times the training; it comes after the TensorBoard callback, which closes its file first."""

    def on_train_begin(self, *args: Any, **options: Any) -> None:
        self.begun = Spent.now()

    def on_train_end(self, *args: Any, **options: Any) -> None:
        self.spent = Spent.now() - self.begun


def transformers(work: Work, folder: Path) -> Outcome:
    """transformers.Trainer, logging every update to TensorBoard, without clipping, bar or checkpoints."""
    net, watch = deepcopy(work.start), Stopwatch()
    optimizer = work.optimizer(net)
    settings = TrainingArguments(
        output_dir=str(folder),
        max_steps=work.updates,
        logging_steps=1,
        report_to=["tensorboard"],
        save_strategy="no",
        max_grad_norm=0.0,
        use_cpu=True,
        disable_tqdm=True,
        log_level="error",
    )
    optimizers = optimizer, LambdaLR(optimizer, work.factor)
    trainer = Peer(net, settings, train_dataset=Batches(work), optimizers=optimizers, callbacks=[watch])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return Outcome(watch.spent, net)
