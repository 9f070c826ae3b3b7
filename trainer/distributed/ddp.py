"""Several processes that exchange gradients, met and watched by a `RankMonitor`."""

from datetime import timedelta
from typing import Any

from lightning_fabric.utilities.distributed import _init_dist_connection, _set_num_threads_if_needed
from lightning_fabric.utilities.seed import reset_seed
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch.distributed import PrefixStore

from trainer.distributed.rank_monitor import RankMonitor


class Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine, unless somebody else has, and has them watched."""

    def __init__(self, strategy: "Exchange") -> None:
        assert strategy.cluster_environment is not None
        super().__init__(strategy.cluster_environment, strategy.num_processes, strategy.num_nodes)
        self.watch, self.shares_cores = strategy.watch, strategy.threads is None

    def launch(self, function: Any, *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start, then call `function`."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            self._call_children_scripts()
        if self.watch is not None:
            self.watch.join(environment, dict(enumerate(self.procs, start=1)))
        if self.shares_cores:
            _set_num_threads_if_needed(self.num_processes)
        return function(*args, **kwargs)


class Exchange(DDPStrategy):
    """DDP that does nothing behind the update's back: buffers are not broadcast, and gradients are views of buckets.

    A collective that hangs although all processes live (they disagree about what comes next) ends after ten times
    `trainer.timeout`.
    """

    def __init__(self, watch: RankMonitor | None, timeout: float, threads: int | None) -> None:
        super().__init__(gradient_as_bucket_view=True, broadcast_buffers=False, timeout=timedelta(seconds=10 * timeout))
        self.watch, self.threads = watch, threads

    def _configure_launcher(self) -> None:
        self._launcher = Launcher(self)

    def setup_distributed(self) -> None:
        """The process group, in the store where the watch has met the others."""
        store = self.watch.store if self.watch is not None else None
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
