"""A callback on every hook of Lightning, which counts its calls and hashes what it saw: the weights, the batch, …

`+callbacks.planted._target_=tests.resume.planted.Planted allow=[tests]` puts it into any run.
"""

import hashlib
import re
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from torch.utils import _pytree

OF_A_PROCESS = frozenset(
    "setup teardown on_fit_start on_fit_end on_train_start on_train_end on_sanity_check_start on_sanity_check_end "
    "on_exception on_save_checkpoint on_load_checkpoint".split()
)
"""Hooks that each process of a run calls anew, however often it was resumed before."""
NEVER_CALLED = frozenset("on_before_zero_grad on_before_backward on_after_backward on_before_optimizer_step".split())
"""Hooks inside an update, between whose chunks callbacks act."""
OF_A_RUN = tuple(
    name
    for name in sorted(vars(Callback))
    if name.startswith("on_") and name not in OF_A_PROCESS | NEVER_CALLED and not re.search("test|predict", name)
)
"""Hooks whose calls belong to the updates and validations of a run."""


class Planted(Callback):
    """`counts` are the calls of each hook, `seen` is a running hash of what they saw, on this rank.

    A hook sees its arguments, the clock, Lightning's counters, the metrics, the rates, and the weights. It also logs
    its count after each validation and each chunk of updates, at the last update.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.seen = ""

    def state_dict(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.counts, self.seen = dict(state_dict["counts"]), state_dict["seen"]

    def see(self, hook: str, trainer: Trainer, module: Any, *arguments: Any) -> None:
        """Count a call, and take in what it sees."""
        if trainer.state.fn != "fit":
            return
        self.counts[hook] = self.counts.get(hook, 0) + 1
        found = hashlib.sha256(f"{self.seen} {hook}".encode())
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        view = module.clock.t, trainer.global_step, trainer.current_epoch, trainer.should_stop, metrics, rates
        for value in _pytree.tree_leaves([*view, arguments, *module.net.state_dict().values()]):
            found.update(_bits(value))
        self.seen = found.hexdigest()
        if hook in ("on_train_batch_end", "on_validation_end"):
            for logger in trainer.loggers:
                logger.log_metrics({f"planted/{hook}": self.counts[hook]}, max(module.clock.t - 1, 0))


def _bits(value: Any) -> bytes:
    if isinstance(value, torch.Tensor):
        value = value.to_local() if hasattr(value, "to_local") else value  # a part of a weight that ranks share
        return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return repr(value).encode()


def _hook(name: str) -> Any:
    def hook(self: Planted, *arguments: Any, **options: Any) -> None:
        self.see(name, *arguments, *options.values())

    return hook


for _name in OF_A_RUN:
    setattr(Planted, _name, _hook(_name))
