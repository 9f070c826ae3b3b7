"""The data of the tasks: samples in memory that are made from a seed, or come with scikit-learn."""

from typing import Any

import torch
from torch import Tensor

from data.bounds import share
from data.module import DataModule, Splits
from data.source import Memory
from experiments.doctor_cases import families, second, third, unseen

MADE = {
    "digits": families.digits,
    "rows": lambda: families.digits(rows=True),
    "codes": lambda: families.digits(own=True),
    "teacher": families.teacher,
    "friedman": families.friedman,
    "bars": families.bars,
    "bags": families.bags,
    "ratings": families.ratings,
    "photographs": second.photographs,
    "tones": second.tones,
    "sets": second.sets,
    "waves": second.waves,
    "gratings": second.gratings,
    "walks": second.walks,
    "noisy_patches": second.noisy_patches,
    "cancer": second.cancer,
    "diabetes": second.diabetes,
    "masked": third.masked,
    "clouds": third.clouds,
    "pairs": unseen.pairs,
    "order": third.order,
    "photograph": third.photograph,
    "graphs": unseen.graphs,
    "jumps": unseen.jumps,
    "mixture": unseen.mixture,
    "rings": unseen.rings,
    "spirals": unseen.spirals,
}


class Samples(DataModule):
    """The samples `of` that name; the last of them validate. A share `wrong` of all labels is drawn anew.

    With wrong labels no net has a loss near 0, where a share of the loss would say little.
    """

    def __init__(self, *, of: str, wrong: float, **base: Any) -> None:
        super().__init__(**base)
        self.of, self.wrong = of, share("data.wrong", wrong)

    def read(self) -> Splits:
        made = MADE[self.of]()
        targets = _redrawn(made.targets, self.wrong) if self.wrong else made.targets
        sizes = [len(targets) - made.validation, made.validation]
        train, val = (Memory(part) for part in zip(made.inputs.split(sizes), targets.split(sizes)))
        return Splits(train, val)


def _redrawn(labels: Tensor, wrong: float) -> Tensor:
    """The labels, (N,), with round(wrong · N) of them drawn from all classes."""
    draw = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(labels), generator=draw)[: round(wrong * len(labels))]
    labels = labels.clone()
    labels[chosen] = torch.randint(int(labels.max()) + 1, chosen.shape, generator=draw)
    return labels
