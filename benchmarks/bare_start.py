"""A bare script with Hydra that leaves after its first update, and a callback with which a run of Cadence does so.

The net, data, loss and optimizer are those of the default config.
"""

import os
from typing import Any

import hydra
from omegaconf import DictConfig

if __name__ != "__main__":
    import pytorch_lightning as pl

    class ExitAtFirstUpdate(pl.Callback):
        """Ends the process as soon as the first update is made."""

        def on_train_batch_end(self, *arguments: Any) -> None:
            os._exit(0)


@hydra.main(version_base="1.3", config_path=None)
def main(cfg: DictConfig) -> None:
    """One update of the default run."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    weights = [one for one in net.parameters() if one.ndim > 1]
    biases = [one for one in net.parameters() if one.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.003, fused=True)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)(net(inputs[:32]), targets[:32])
    loss.backward()
    optimizer.step()
    os._exit(0)


if __name__ == "__main__":
    main()
