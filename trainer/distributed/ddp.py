"""Data parallelism (DDP), with ranks that a `RankMonitor` connects and watches."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.distributed import _init_dist_connection, _set_num_threads_if_needed
from lightning_fabric.utilities.seed import reset_seed
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch import Tensor
from torch.autograd import Variable
from torch.distributed import PrefixStore
from torch.nn.parallel import DistributedDataParallel

from trainer.distributed.launch.launcher import become_parent
from trainer.distributed.rank_monitor import RankMonitor
from trainer.lr import ConfigError


class MonitoredLauncher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine, unless another program has, and has them monitored."""

    def __init__(self, strategy: "MonitoredDDP") -> None:
        assert strategy.cluster_environment is not None
        super().__init__(strategy.cluster_environment, strategy.num_processes, strategy.num_nodes)
        self.monitor, self.shares_cores = strategy.monitor, strategy.threads is None

    def launch(self, function: Any, *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start, then call `function`."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            become_parent(environment.node_rank() * self.num_processes)
            self._call_children_scripts()
        if self.monitor is not None:
            self.monitor.join(environment, dict(enumerate(self.procs, start=1)))
        if self.shares_cores:
            _set_num_threads_if_needed(self.num_processes)
        return function(*args, **kwargs)


class MonitoredDDP(DDPStrategy):
    """DDP that changes nothing but gradients: buffers are not broadcast. `options` are those of torch's DDP.

    A collective that hangs although all processes live (each waits for another one) ends after ten times
    `trainer.timeout`.
    """

    def __init__(self, monitor: RankMonitor | None, timeout: float, threads: int | None, **options: Any) -> None:
        super().__init__(broadcast_buffers=False, timeout=timedelta(seconds=10 * timeout), **options)
        self.monitor, self.threads = monitor, threads

    def setup(self, trainer: pl.Trainer) -> None:
        self._pl_static_graph_delay_done = False  # DDP is made anew, and first counts how parameters are used
        super().setup(trainer)
        assert self.model is not None
        self._exchanged = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Where gradients will be exchanged: do for a static graph what DDP does in calls of the model.

        It counts its calls, of which a chunk is one, and exchanges the first gradients at the end of a backward pass.
        """
        ddp = self.model
        if isinstance(ddp, DistributedDataParallel) and ddp.static_graph and ddp.require_backward_grad_sync:
            if self._pl_static_graph_delay_done:
                ddp.reducer.prepare_for_forward()
            else:
                later = ddp.reducer._delay_all_reduce  # type: ignore[attr-defined]
                closure_loss.register_hook(lambda _: Variable._execution_engine.queue_callback(later))
                self._pl_static_graph_delay_done = True  # Lightning would exchange once more
        super().pre_backward(closure_loss)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Where gradients have been exchanged: refuse parameters without one, whose bucket was left out.

        torch notices that in the next update, after a step with gradients that were not averaged.
        """
        ddp = self.model
        if not isinstance(ddp, DistributedDataParallel) or not ddp.require_backward_grad_sync:
            return
        super().post_backward(closure_loss)
        if not ddp.find_unused_parameters and any(parameter.grad is None for parameter in self._exchanged):
            named = ddp.module.named_parameters()
            raise ConfigError(_unused([name for name, p in named if p.requires_grad and p.grad is None]))

    def _configure_launcher(self) -> None:
        self._launcher = MonitoredLauncher(self)

    def setup_distributed(self) -> None:
        """The process group, in the store where the monitor met the other ranks."""
        store = self.monitor.store if self.monitor is not None else None
        if store is None:
            return super().setup_distributed()
        reset_seed()
        self.set_world_ranks()
        self._process_group_backend = self._get_process_group_backend()
        assert self.cluster_environment is not None
        _init_dist_connection(
            self.cluster_environment,
            self._process_group_backend,
            timeout=self._timeout,
            device_id=self.root_device if self.root_device.type != "cpu" else None,
            store=PrefixStore("group", store),
        )
        return None


def _unused(names: Sequence[str]) -> str:
    short = [name.removeprefix("net.") for name in names[:3]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{', '.join(short)}{more} of the model took no part in the loss, and DDP waits for the gradient of each "
        "parameter: set trainer.ddp.find_unused_parameters=true, or freeze what is never used."
    )
