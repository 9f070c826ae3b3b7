"""The same in a loop of one's own, which takes its learning rates from Cadence: python reinforcement_loop.py."""

from pathlib import Path

import torch
from reinforcement import policy, reinforce, starts
from torch import nn

import cadence


def train(checkpoint: Path, updates: int = 25, stop: int | None = None) -> nn.Module:
    """Train, or go on from a checkpoint, which is written after each update."""
    torch.manual_seed(0)
    net = policy()
    optimizer = torch.optim.Adam(net.parameters())
    plan = cadence.plan("optimizer=adam", "optimizer.lr=0.01", "schedule=linear", updates=updates)
    scheduler = plan.scheduler(optimizer)
    parts = {"net": net, "optimizer": optimizer, "scheduler": scheduler}
    begin = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        begin = saved.pop("updates")
        for name, state in saved.items():
            parts[name].load_state_dict(state)
    states = starts(32 * updates, seed=0).tensors[0].split(32)
    for t in range(begin, updates if stop is None else stop):
        torch.manual_seed(t)
        output = reinforce(net, (states[t],), t=t)
        output.loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        print(f"update {t}  lr {plan.curve[t]:.4f}  steps {output.logs['steps']:.1f}")
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"updates": t + 1}, checkpoint)
    return net


if __name__ == "__main__":
    train(Path("loop.pt"))
