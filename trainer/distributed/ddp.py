"""Data parallelism (DDP), with ranks that a `RankMonitor` connects and watches."""

from datetime import timedelta
from typing import Any

from lightning_fabric.utilities.distributed import _init_dist_connection, _set_num_threads_if_needed
from lightning_fabric.utilities.seed import reset_seed
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.distributed import PrefixStore

from trainer.distributed.rank_monitor import RankMonitor


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
            self._call_children_scripts()
        if self.monitor is not None:
            self.monitor.join(environment, dict(enumerate(self.procs, start=1)))
        if self.shares_cores:
            _set_num_threads_if_needed(self.num_processes)
        return function(*args, **kwargs)


class MonitoredDDP(DDPStrategy):
    """DDP that changes nothing but gradients: buffers are not broadcast, and gradients are views of buckets.

    A collective that hangs although all processes live (each waits for another one) ends after ten times
    `trainer.timeout`.
    """

    def __init__(self, monitor: RankMonitor | None, timeout: float, threads: int | None) -> None:
        super().__init__(gradient_as_bucket_view=True, broadcast_buffers=False, timeout=timedelta(seconds=10 * timeout))
        self.monitor, self.threads = monitor, threads

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
