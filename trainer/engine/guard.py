"""The divergence guard of a run: it judges each update, and undoes what an update that is left out has changed."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.engine.clock import Clock
from trainer.lr.guard import Rollback, Skip, Stop, Window

ADVICE = "Lower optimizer.lr, lengthen the warm-up, or set trainer.clip."
SERIES = ("loss", "gradient norm")


class Diverged(RuntimeError):
    """A loss or a gradient was not finite, or a spike.

    `update` is the one that had it, where it is known; `inputs` tells which of its samples are not finite, if any.
    """

    def __init__(self, text: str, update: int | None = None, inputs: str = "") -> None:
        super().__init__(text)
        self.update, self.inputs = update, inputs


class Guard:
    """Applies `rule` to the updates of one run; all processes come to the same decisions.

    Skipping judges each update before its step, by the loss and norm that are common to all processes. Otherwise spikes
    are looked for when the metrics are flushed, which costs an update nothing.
    """

    def __init__(self, rule: Stop, clock: Clock) -> None:
        self.rule, self.clock = rule, clock
        self.skips = isinstance(rule, Skip)  # whether an offending update is left out
        self.windows = {name: Window(rule.window) for name in SERIES}
        self.skipped: list[int] = []
        self.reason = ""
        self._buffers: list[Tensor] = []
        self._kept: list[Tensor] = []
        self._unsaved: dict[str, Tensor] = {}

    @torch.no_grad()
    def begin(self, net: nn.Module) -> None:
        """Call at the start of training; `net` may have buffers, which the forward pass changes.

        After a rollback, buffers that no checkpoint holds are again as they were at the start of the process.
        """
        if isinstance(self.rule, Rollback):
            saved = net.state_dict().keys()
            for name, buffer in net.named_buffers():
                if name not in saved:
                    buffer.copy_(self._unsaved.setdefault(name, buffer.clone()))
        self._buffers = [buffer for buffer in net.buffers() if buffer.numel()] if self.skips else []
        self._kept = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def keep(self) -> None:
        """Copy the buffers before an update."""
        for kept, buffer in zip(self._kept, self._buffers):
            kept.copy_(buffer)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the buffers back as they were before the update."""
        for kept, buffer in zip(self._kept, self._buffers):
            buffer.copy_(kept)

    def offends(self, t: int, loss: float, norm: float) -> bool:
        """Whether update `t` must be left out, for `reason`; an update that need not is taken into the windows."""
        self.reason = describe(loss, norm) or self._spike(loss, norm)
        if not self.reason:
            self._take(loss, norm)
        return bool(self.reason)

    def check_spike(self, t: int, norm: float, loss: float) -> None:
        """Take in an update that was applied. Raises `Diverged` where it is a spike."""
        if self.skips or self.rule.threshold is None:
            return
        if spike := self._spike(loss, norm):
            raise Diverged(f"update {t} has {spike}: the run stops. {ADVICE}", t)
        self._take(loss, norm)

    def leave_out(self, t: int, positions: Sequence[int]) -> str:
        """Leave the batch at these positions out; what happened, in one line. Raises `Diverged` at the limit."""
        assert isinstance(self.rule, Skip)
        limit, window = self.rule.limit, self.rule.window
        self.skipped = [at for at in self.skipped if at > t - window]
        if len(self.skipped) >= limit:
            raise Diverged(
                f"update {t} has {self.reason}, and guard.limit={limit} updates have been left out while the clock "
                f"made {window}: the run stops. {ADVICE}",
                t,
            )
        self.skipped.append(t)
        self.clock.left_out[:] = sorted({*self.clock.left_out, *positions})
        return f"update {t} has {self.reason}: left out, {len(self.skipped)} of {limit} in {window} updates"

    def state_dict(self) -> dict[str, Any]:
        """The updates left out, and the values that later ones are compared with; empty where there are none."""
        values = {name: list(window.values) for name, window in self.windows.items() if window.values}
        return {**({"skipped": self.skipped} if self.skipped else {}), **({"windows": values} if values else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; a shorter window takes the newest values."""
        self.skipped = list(state.get("skipped", []))
        self.windows = {name: Window(self.rule.window) for name in SERIES}
        for name, values in state.get("windows", {}).items():
            self.windows[name].extend(values)

    def _spike(self, loss: float, norm: float) -> str:
        """What makes an update a spike; empty where nothing does."""
        if self.rule.threshold is None:
            return ""
        for (name, window), value in zip(self.windows.items(), (loss, norm)):
            if (score := window.score(value)) > self.rule.threshold:
                count = len(window.values)
                return (
                    f"a spike: {name} {value:.6g}, {score:.3g} deviations above {window.middle:.6g} of {count} updates"
                )
        return ""

    def _take(self, loss: float, norm: float) -> None:
        if self.rule.threshold is not None:
            for window, value in zip(self.windows.values(), (loss, norm)):
                window.extend([value])


def describe(loss: float | None, norm: float) -> str:
    """What of an update is not finite; empty where all is."""
    if math.isfinite(norm) and math.isfinite(loss or 0.0):
        return ""
    return f"gradient norm {norm}" if loss is None else f"loss {loss} and gradient norm {norm}"


def where_nonfinite(data: Any, t: int) -> str:
    """Which samples of update `t` hold numbers that are not finite, on all ranks; empty where none does.

    All ranks call it together, after a failure: the batches are read again.
    """
    find = getattr(data, "nonfinite_samples", None)
    own = [] if find is None else find(t)
    every: list[Any] = [own]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        every = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(every, own)
    found = [line for of_rank in every for line in of_rank]
    return f" Its data is not finite, {'; '.join(found)}." if found else ""


def explained(failure: Diverged, data: Any) -> Diverged:
    """The same failure, with the samples that are not finite in place of advice on the learning rate."""
    text, found = str(failure), "" if failure.update is None else where_nonfinite(data, failure.update)
    if found:
        text = f"{text.removesuffix(ADVICE).rstrip()}{found} Correct these samples, or leave them out."
    return Diverged(text, failure.update, found)


def check_finite(t: int, norm: float, loss: float | None = None) -> None:
    """Raise `Diverged` where the gradient norm or the loss of update `t` is not finite."""
    if found := describe(loss, norm):
        raise Diverged(f"update {t} has {found}: the run stops, and this update is not applied. {ADVICE}", t)
