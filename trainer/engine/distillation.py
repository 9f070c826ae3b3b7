"""Knowledge distillation: a net learns from the outputs of a trained teacher, and from the labels."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.engine.frozen import Frozen
from trainer.engine.losses import checked_weights, combined, joined_weights
from trainer.engine.step import PairStep, StepOutput, class_loss
from trainer.engine.task import TokenCrossEntropy
from trainer.lr.bounds import positive

NAMES = ["soft", "hard"]


class Distillation(nn.Module):
    """λ_soft · T² KL(softmax(z'/T) ‖ softmax(z/T)) + λ_hard · loss(z, y), with z = net(x) and z' = teacher(x).

    Hinton et al. 2015, arXiv:1503.02531; T² keeps the gradients of the first term at the size of the second's. The
    first is a mean over what `loss` counts: samples, pixels or tokens that are not its `ignore_index`. `loss_weights`
    are λ; each may follow `hyper_schedule.loss_weights.soft` or `hard`. `path` has the weights of the teacher: a
    checkpoint of a run or a state_dict. The teacher is in checkpoints where `save_teacher` is true.
    """

    def __init__(
        self,
        teacher: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        path: str | None = None,
        temperature: float = 4.0,
        loss_weights: Mapping[str, float] | None = None,
        save_teacher: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = positive("task.step.temperature", temperature, "it divides the outputs; usual: 1 to 20.")
        self.loss_weights = checked_weights(NAMES, {"soft": 0.9, "hard": 0.1} if loss_weights is None else loss_weights)
        self.teacher = Frozen(teacher, path, save_teacher, "task.step")
        self.pairs = nn.ModuleList([PairStep(loss)])

    def __call__(self, net: nn.Module, batch: Any, *, t: int) -> StepOutput:
        inputs, targets = batch
        outputs, wanted = net(inputs), self.teacher(inputs)
        one = self.pairs[0](lambda _: outputs, (None, targets), t=t)
        with torch.autocast(outputs.device.type, enabled=False):
            soft = self._divergence(one.outputs, getattr(wanted, "logits", wanted).to(one.outputs.dtype), targets)
        parts = torch.stack([soft, one.loss.to(soft.dtype)])
        total = combined(parts, self.loss_weights)
        return StepOutput(total, self.weight_of(batch), outputs=one.outputs, targets=targets, parts=parts)

    def weight_of(self, batch: Any) -> Tensor | None:
        """The weights of both losses; None where both are means over samples."""
        hard = self.pairs[0].weight_of(batch)  # type: ignore[operator]
        counted = None if hard is None else self._counted(batch[1])
        return joined_weights([None if counted is None else counted.sum(), hard], batch)

    def _divergence(self, outputs: Tensor, wanted: Tensor, targets: Tensor) -> Tensor:
        classes = -1 if isinstance(self.pairs[0].loss, TokenCrossEntropy) else 1
        given = (outputs / self.temperature).log_softmax(classes)
        right = (wanted / self.temperature).log_softmax(classes)
        each = (right.exp() * (right - given)).sum(classes) * self.temperature**2
        counted = self._counted(targets)
        if counted is None:
            return each.mean()
        return torch.where(counted, each, 0.0).sum() / counted.sum().clamp(min=1)

    def _counted(self, targets: Tensor) -> Tensor | None:
        """Which targets count; None where all do."""
        loss = self.pairs[0].loss
        ignored = getattr(class_loss(loss) or loss, "ignore_index", None)
        return None if ignored is None or targets.is_floating_point() else targets != ignored
