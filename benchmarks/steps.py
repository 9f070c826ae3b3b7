"""The time of a step of AdamW in each of torch's implementations, and whether they end with the same weights."""

import random
from argparse import Namespace
from statistics import median
from time import perf_counter
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

VARIANTS: dict[str, dict[str, bool | None]] = {
    "default": {},
    "loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
SIZES = {"1M": (64, 128), "10M": (160, 256)}
"""How many square matrices, and their width; a vector goes with each matrix."""


def measured(options: Namespace) -> dict[str, Any]:
    """Milliseconds of a step of each variant in each round, in shuffled order, and the difference of the weights."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {}
    for size, (count, width) in SIZES.items():
        runs = {name: made(count, width, device, choice) for name, choice in VARIANTS.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        order, names = random.Random(0), list(runs)
        for _ in range(options.rounds + 1):
            order.shuffle(names)
            for name in names:
                times[name].append(stepped(runs[name][1], options.updates or 10, device))
        loop = torch.cat([parameter.detach().flatten() for parameter in runs["loop"][0]])
        for name, (parameters, _) in runs.items():
            apart = (torch.cat([parameter.detach().flatten() for parameter in parameters]) - loop).abs().max().item()
            found[f"{size} {name}"] = {"ms": times[name][1:], "apart": apart}
    return {"device": device, "rounds": options.rounds, "variants": found}


def made(count: int, width: int, device: str, choice: dict[str, Any]) -> tuple[list[torch.nn.Parameter], Any]:
    """The same weights and gradients for each variant, and its optimizer."""
    generator = torch.Generator().manual_seed(0)
    parameters = []
    for _ in range(count):
        for shape in ((width, width), (width,)):
            parameter = torch.nn.Parameter(torch.randn(shape, generator=generator).to(device))
            parameter.grad = torch.randn(shape, generator=generator).to(device)
            parameters.append(parameter)
    return parameters, torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01, **choice)


def stepped(optimizer: torch.optim.Optimizer, updates: int, device: str) -> float:
    """Milliseconds of a step, as the mean of `updates` steps."""
    begun = perf_counter()
    for _ in range(updates):
        optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (perf_counter() - begun) / updates


def show(report: dict[str, Any]) -> None:
    """Print the table; Cadence uses the fused variant."""
    table = Table("numbers, variant", "ms", "least to most", "× default", "apart from the loop", box=SIMPLE)
    for name, row in report["variants"].items():
        base = median(report["variants"][f"{name.split()[0]} default"]["ms"])
        spread = f"{min(row['ms']):.3f} to {max(row['ms']):.3f}"
        table.add_row(
            name, f"{median(row['ms']):.3f}", spread, f"{median(row['ms']) / base:.2f}", f"{row['apart']:.1e}"
        )
    Console().print(table)
