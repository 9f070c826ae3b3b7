"""Updates of the same batches on 1, 2 and 4 processes, with the norms of their micro-batches' gradients.

Started by test_spread.py: python tests/measure/splits.py FOLDER. Each rank writes what it saw.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data.stream import MicroBatch
from trainer.engine.clock import Clock
from trainer.engine.lr_control import LRControl
from trainer.engine.step import PairStep
from trainer.engine.update import Backward, Updater
from trainer.log.metric_buffer import MetricBuffer
from trainer.lr import Horizon, LRPolicy, compose, linear, no_warmup
from trainer.measure.micro_gradients import MicroGradients

ROOT = Path(__file__).parents[2]
LAYOUTS = ((1, 4), (2, 2), (4, 1))
UPDATES = 4


def train(rank: int, world: int, accumulate: int, measured: bool) -> tuple[list, int, str]:
    """The squares of each update, the micro-batches in one, and a fingerprint of the weights at the end."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    weights = [[p for p in net.parameters() if (p.ndim > 1) == matrix] for matrix in (True, False)]
    optimizer = torch.optim.SGD([{"params": group} for group in weights], lr=0.1, momentum=0.9)
    factors = compose(Horizon(UPDATES, 1), no_warmup, linear)
    control = LRControl(LRPolicy(0.1, 1.0, *factors, groups={"w": 1, "b": 1}))
    control.attach(optimizer)
    ddp = DistributedDataParallel(net, gradient_as_bucket_view=True, broadcast_buffers=False, bucket_cap_mb=0.0001)

    def prepare(_: torch.Tensor) -> None:
        if ddp.require_backward_grad_sync:
            ddp.reducer.prepare_for_backward([])

    backward = Backward(torch.device("cpu"), prepare, ddp.no_sync)
    recorder = MicroGradients(weights, ddp) if measured else None
    step = PairStep(nn.MSELoss())
    update = Updater(net, step, optimizer, control, Clock(), MetricBuffer(), backward, micro_gradients=recorder)
    generator, seen = torch.Generator().manual_seed(1), []
    for _ in range(UPDATES):
        inputs = torch.randn(4, 3, 4, generator=generator, dtype=torch.float64)
        targets = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
        places = [micro * world + rank for micro in range(accumulate)]
        update([MicroBatch((inputs[i], targets[i]), 0) for i in places])
        seen.append(recorder.squares.tolist() if recorder else None)
    bits = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest()
    return seen, recorder.count if recorder else 0, bits


def main(folder: Path, rank: int, world: int, accumulate: int) -> None:
    """One rank of a layout."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / f"store-{world}"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    _, _, plain = train(rank, world, accumulate, measured=False)
    squares, count, bits = train(rank, world, accumulate, measured=True)
    told = {"squares": squares, "count": count, "plain": plain, "measured": bits}
    (folder / f"{world}-{accumulate}-{rank}.json").write_text(json.dumps(told))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    for world, accumulate in LAYOUTS:
        children = []
        for rank in range(world):
            child = os.fork()
            if not child:
                try:
                    main(Path(sys.argv[1]), rank, world, accumulate)
                    os._exit(0)
                except BaseException as error:
                    print(repr(error), file=sys.stderr, flush=True)
                    os._exit(1)
            children.append(child)
        codes = [os.waitpid(child, 0)[1] for child in children]
        if any(codes):
            sys.exit(1)
