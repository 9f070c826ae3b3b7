"""Several processes that each hold a part of every weight, of its gradient and of the optimizer's state."""

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

from trainer.distributed.ddp import Exchange
from trainer.engine.module import Module
from trainer.optim.groups import Group
from trainer.optim.shards import gather, shard

CONTAINERS = (nn.Sequential, nn.ModuleList)


class Sharded(Exchange):
    """FSDP2: a block of the net is whole only while it computes; its gradients are averaged and shared out at once.

    Each process makes the whole net and takes up a checkpoint of the whole; then it keeps its part. Checkpoints are
    put together on rank 0, and are those of any other strategy. Rajbhandari et al. 2019, arXiv:1910.02054 (ZeRO-3);
    Zhao et al. 2023, arXiv:2304.11277.
    """

    def setup(self, trainer: pl.Trainer) -> None:
        """Share out the weights, then make the optimizer of the parts."""
        assert self.accelerator is not None
        assert isinstance(self.model, Module)
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        if not isinstance(self.model.net, FSDPModule):
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            share_out(self.model.net, self.model.spec.groups, mesh)
        for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
            loop.inference_mode = False  # what is put together within it could not be trained afterwards
        self.model_to_device()
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting:
            self.setup_optimizers(trainer)
            for optimizer in self.optimizers:
                adapt(optimizer)
        self.setup_precision_plugin()
        if fitting:
            _optimizers_to_device(self.optimizers, self.root_device)

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Within, gradients stay whole in each process, and add up."""
        assert isinstance(self.model, Module)
        net: Any = self.model.net
        net.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            net.set_requires_gradient_sync(True)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Put the parts together, and write the whole from rank 0."""
        super().save_checkpoint(gather(checkpoint, keep=self.is_global_zero), filepath, storage_options)

    def teardown(self) -> None:
        """Leave the parts where they are: the test still needs them."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


def blocks(net: nn.Module) -> Iterator[nn.Module]:
    """The modules with parameters in the outermost Sequentials and ModuleLists of `net`, which may be one itself.

    A ModuleList among them is opened in turn. What shares a parameter with the rest of the net is left to the root.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)))
    >>> [type(block).__name__ for block in blocks(net)]
    ['Linear', 'Sequential']
    """
    uses = _uses(net)
    for block in _inside(net):
        within = _uses(block)
        if within and all(uses[key] == count for key, count in within.items()):
            yield block


def _inside(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, CONTAINERS) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _inside(child)


def _uses(module: nn.Module) -> Counter[int]:
    """In how many places of a module each parameter lies, by its id."""
    return Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))


def share_out(net: nn.Module, groups: Sequence[Group], mesh: DeviceMesh) -> None:
    """Leave to each process its part of the first dimension of each parameter, in `net` and in `groups`.

    The whole net is loaded as ever: `net` takes whole tensors and keeps its part.
    """
    for unit in [*blocks(net), net]:
        before = dict(unit.named_parameters(remove_duplicate=False))
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        now = dict(unit.named_parameters(remove_duplicate=False))
        fresh = {id(before[name]): now[name] for name in before}
        for group in groups:
            group.parameters[:] = [fresh.get(id(parameter), parameter) for parameter in group.parameters]
    net.register_load_state_dict_pre_hook(_parts_of_weights)


def _parts_of_weights(net: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before `net` loads whole weights: share them out as its own are."""
    for name, parameter in net.named_parameters(remove_duplicate=False):
        if prefix + name in state:
            state[prefix + name] = shard(state[prefix + name], like=parameter)


def adapt(optimizer: Optimizer) -> None:
    """Have an optimizer of parts take up a whole state, and step by lists where no fused kernel takes parts.

    In torch 2.13 those of Adam do, and that of SGD does not.
    """
    optimizer.register_load_state_dict_pre_hook(_parts_of_state)
    for group in optimizer.param_groups:
        if group.get("fused") and "betas" not in group:
            group |= {"fused": False, "foreach": True}


def _parts_of_state(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Before an optimizer loads a whole state: share out what is kept for each number of a parameter."""
    places = [place for group in state["param_groups"] for place in group["params"]]
    owners = dict(zip(places, (owner for group in optimizer.param_groups for owner in group["params"]), strict=True))

    def shared(value: Any, owner: Tensor) -> Any:
        return shard(value, like=owner) if isinstance(value, Tensor) and value.shape == owner.shape else value

    kept = {
        place: {name: shared(value, owners[place]) for name, value in values.items()}
        for place, values in state["state"].items()
    }
    return {**state, "state": kept}
