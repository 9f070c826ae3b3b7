"""A recorder for tests without a GPU: it keeps the operations of torch, as a CUDA graph keeps kernels."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Records each operation with its tensors and numbers; a replay runs them again, without any Python of the update.

    As in a CUDA graph, numbers are constants, tensors are memory, and what waits for the device raises. Other than
    there, the recording itself computes: the first replay only gives its results.
    """

    def __init__(self):
        super().__init__()
        self.operations, self.runs, self.replays = [], 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    def run(self, work):
        self.runs += 1
        return work()

    def record(self, work):
        with self:
            made = work()

        def replay():
            if self.replays:
                self._again()
            self.replays += 1
            return made

        return replay

    @torch.no_grad()
    def _again(self):
        for func, args, kwargs, out in self.operations:
            new = func(*args, **kwargs)
            for kept, one in zip(tree_leaves(out), tree_leaves(new), strict=True):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != one.data_ptr():
                    kept.copy_(one)
