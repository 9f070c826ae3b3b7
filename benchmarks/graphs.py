"""Updates that are replayed as a CUDA graph, beside a bare loop as it is and one that is recorded, too."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.compared import Line
from benchmarks.compiled import NETS, Eager, speed_up
from trainer.config import cuda_graph as checks
from trainer.engine.cuda_graph import WARM_UPS, CudaRecorder, GraphUpdater, Made
from trainer.run import Parts

OURS = ("trainer.compile=false", "trainer.cuda_graph=true")


class Kept:
    """For a rehearsal on the CPU: each replay does the work again."""

    def run(self, work: Callable[[], Made]) -> Made:
        """Do the work."""
        return work()

    def record(self, work: Callable[[], Made]) -> Callable[[], Made]:
        """The work itself."""
        return work


class Recorded(Eager):
    """A bare loop whose update is recorded after the warm-ups, with a constant rate, as torch's notes show it."""

    label = "bare, CUDA graph, float32"

    def __init__(self, net: nn.Module, assembly: Parts, device: str = "cpu") -> None:
        super().__init__(net, assembly, device)
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=0.001, fused=True, capturable=True)
        self.recorder = CudaRecorder(torch.device(device)) if device == "cuda" else Kept()
        self.made, self.memory = 0, list[Tensor]()
        self.replay: Callable[[], None] | None = None

    def advance(self, updates: int) -> None:
        """Make the next `updates` updates."""
        for _ in range(updates):
            given = next(self.batches)
            if not self.memory:
                self.memory = [tensor.clone() for tensor in given]
            torch._foreach_copy_(self.memory, list(given))
            if self.made < WARM_UPS:
                self.recorder.run(self._update)
            else:
                self.replay = self.replay or self.recorder.record(self._update)
                self.replay()
            self.made += 1

    def _update(self) -> None:
        inputs, targets = self.memory
        outputs: Tensor = self.net(inputs)
        cross_entropy(outputs.flatten(0, -2), targets.flatten()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def replayed(blocks: int, block: int, device: Sequence[str]) -> list[Line]:
    """An update of each net, replayed, beside the bare loop as it is and beside the recorded one."""
    with _rehearsed("trainer.accelerator=cpu" in device):
        return [
            speed_up(name, words, blocks, block, [*device, *OURS], peer)
            for name, words in NETS.items()
            for peer in (Eager, Recorded)
        ]


@contextmanager
def _rehearsed(on_the_cpu: bool) -> Iterator[None]:
    """On the CPU nothing is recorded, but all else is as it is on a GPU."""
    before: tuple[Any, Any] = GraphUpdater.make_recorder, checks._on_cuda
    try:
        if on_the_cpu:
            GraphUpdater.make_recorder = lambda self: Kept()  # type: ignore[method-assign]
            checks._on_cuda = lambda run: True
        yield
    finally:
        GraphUpdater.make_recorder, checks._on_cuda = before  # type: ignore[method-assign]
