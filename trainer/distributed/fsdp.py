"""Sharded data parallelism (FSDP2): each rank holds a shard of every weight, its gradient and its optimizer state."""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.optimizer import _optimizers_to_device
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer

from trainer.distributed.ddp import MonitoredDDP
from trainer.engine.module import Module
from trainer.optim.groups import Group
from trainer.optim.shards import gather, shard

CONTAINERS = (nn.Sequential, nn.ModuleList)


class MonitoredFSDP(MonitoredDDP):
    """FSDP2: a unit of the net is gathered only while it computes; its gradients are averaged and scattered at once.

    Each rank makes the whole net, loads a checkpoint of all of it, and keeps its shards. Checkpoints are gathered on
    rank 0, and are the same as those of any other strategy. Rajbhandari et al. 2019, arXiv:1910.02054 (ZeRO-3);
    Zhao et al. 2023, arXiv:2304.11277.
    """

    def setup(self, trainer: pl.Trainer) -> None:
        """Shard the weights, then make the optimizer of the shards."""
        assert self.accelerator is not None
        assert isinstance(self.model, Module)
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        if not isinstance(self.model.net, FSDPModule):
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            shard_net(self.model.net, self.model.spec.groups, mesh)
        for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
            loop.inference_mode = False  # parameters that are gathered in it cannot be trained afterwards
        self.model_to_device()
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting:
            self.setup_optimizers(trainer)
            for optimizer in self.optimizers:
                adapt_optimizer(optimizer)
        self.setup_precision_plugin()
        if fitting:
            _optimizers_to_device(self.optimizers, self.root_device)

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Within, each rank keeps unreduced gradients, and adds them up."""
        assert isinstance(self.model, Module)
        net: Any = self.model.net
        net.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            net.set_requires_gradient_sync(True)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Gather the shards, and write the checkpoint from rank 0."""
        super().save_checkpoint(gather(checkpoint, keep=self.is_global_zero), filepath, storage_options)

    def teardown(self) -> None:
        """Leave the shards where they are: the test still needs them."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


def fsdp_units(net: nn.Module) -> Iterator[nn.Module]:
    """The modules to shard as units: the children of the outermost Sequentials and ModuleLists, `net` included.

    A ModuleList among them is opened in turn. A module that shares a parameter with the rest is left to the root unit.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
    >>> [type(unit).__name__ for unit in fsdp_units(net)]
    ['Linear', 'Sequential']
    """
    uses = _uses(net)
    for unit in _inside(net):
        within = _uses(unit)
        if within and all(uses[key] == count for key, count in within.items()):
            yield unit


def _inside(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, CONTAINERS) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _inside(child)


def _uses(module: nn.Module) -> Counter[int]:
    """In how many places of a module each parameter lies, by its id."""
    return Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))


def shard_net(net: nn.Module, groups: Sequence[Group], mesh: DeviceMesh) -> None:
    """Keep on each rank its shard of the first dimension of each parameter, in `net` and in `groups`.

    Loading a state dict of whole tensors still works: the net keeps its shards of them.
    """
    for unit in [*fsdp_units(net), net]:
        before = dict(unit.named_parameters(remove_duplicate=False))
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        now = dict(unit.named_parameters(remove_duplicate=False))
        fresh = {id(before[name]): now[name] for name in before}
        for group in groups:
            group.parameters[:] = [fresh.get(id(parameter), parameter) for parameter in group.parameters]
    net.register_load_state_dict_pre_hook(_shard_weights)


def _shard_weights(net: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before `net` loads whole weights: shard them as its own are."""
    for name, parameter in net.named_parameters(remove_duplicate=False):
        if prefix + name in state:
            state[prefix + name] = shard(state[prefix + name], like=parameter)


def adapt_optimizer(optimizer: Optimizer) -> None:
    """Let an optimizer of shards load a whole state, and use `foreach` where no fused kernel takes shards.

    In torch 2.13 Adam's fused kernels take them, and SGD's does not.
    """
    optimizer.register_load_state_dict_pre_hook(_shard_state)
    for group in optimizer.param_groups:
        if group.get("fused") and "betas" not in group:
            group |= {"fused": False, "foreach": True}


def _shard_state(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Before an optimizer loads a whole state: shard what has the shape of its parameter."""
    indices = [index for group in state["param_groups"] for index in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    by_index = dict(zip(indices, parameters, strict=True))

    def sharded(value: Any, parameter: Tensor) -> Any:
        fits = isinstance(value, Tensor) and value.shape == parameter.shape
        return shard(value, like=parameter) if fits else value

    kept = {
        index: {name: sharded(value, by_index[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {**state, "state": kept}
