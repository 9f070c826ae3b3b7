"""Trains with gradient noise and with a composite optimizer, and notes a fingerprint of the noise and of the weights.

Started by the test beside it, in this process or in those of a world.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_id import register_run_id
from trainer.engine import gradients
from trainer.run import assemble, fit

ROOT = Path(__file__).parents[2]


def fingerprint(tensors: list[torch.Tensor]) -> str:
    """A hash of the bits of tensors."""
    return hashlib.sha256(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)).hexdigest()


def train(folder: Path, processes: int) -> dict[str, list[str]]:
    """The noise of each of 6 updates of muon with AdamW, and the weights at the end."""
    register_run_id()
    seen: list[str] = []
    add = gradients.add_noise

    def watched(parameters: list[torch.nn.Parameter], *rest: Any) -> None:
        kept = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        add(parameters, *rest)
        seen.append(fingerprint([parameter.grad for parameter in parameters if parameter.grad is not None]))
        for parameter, grad in zip(parameters, kept):
            assert grad is not None
            assert parameter.grad is not None
            parameter.grad = grad + parameter.grad

    gradients.add_noise = watched  # type: ignore[assignment]
    words = [
        *("optimizer=muon", "trainer.gradient_noise=0.05", "data=synthetic", "data.samples=64", "data.val_samples=8"),
        *("data.batch_size=4", "model.hidden=[16,16]", "trainer.duration=6", "trainer.validate=6", "warmup=none"),
        *(f"trainer.devices={processes}", f"trainer.accumulate={2 // processes}", "trainer.accelerator=cpu"),
        *("trainer.threads=1", "callbacks=none", "logger=none", "name=x"),
    ]
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        assembly = assemble(compose("train", words), folder)
    try:
        fit(assembly)
    finally:
        gradients.add_noise = add
    return {"noise": seen, "weights": [fingerprint(list(assembly.module.net.parameters()))]}


def as_rank(rank: int, folder: Path) -> None:
    """The same as one of two processes."""
    (folder / f"rank{rank}.json").write_text(json.dumps(train(folder / "run", 2)))
