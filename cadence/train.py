"""`cadence train`, `python -m cadence.train` and `python train.py`: train as the config says."""

import gc
import os
import sys

from trainer.distributed.launch.signals import handle_signals
from trainer.distributed.launch.starting import pause_collector, tell_starting

if __name__ == "__main__":
    handle_signals()  # before the imports that take seconds
    tell_starting()
    pause_collector()

import hydra  # noqa: E402
from hydra.core.global_hydra import GlobalHydra  # noqa: E402
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from trainer.cli.command import check_command  # noqa: E402
from trainer.cli.compose import CONF, absolute_config_path, find_own_packages, keep_search_path  # noqa: E402
from trainer.cli.dry_run import is_dry_run, take_flag  # noqa: E402
from trainer.cli.hydra_internals import VERSION_BASE  # noqa: E402
from trainer.cli.process_end import end_process  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.cli.run_id import register_run_id  # noqa: E402
from trainer.distributed.launch.launcher import tell_ignored_ranks  # noqa: E402


@hydra.main(**VERSION_BASE, config_path=str(CONF), config_name="train")
def train(cfg: DictConfig) -> None:
    """Train the run that the config describes, and write a result into its folder."""
    from trainer.config.before_torch import checked  # late: a sweep and --help need none of it
    from trainer.config.settings import settings_of

    keep_search_path(GlobalHydra.instance().config_loader().get_sources())
    check_command(HydraConfig.get())
    settings = checked(settings_of(cfg))
    lone = "torch" not in sys.modules  # else the configs of a worker's jobs would pile up
    if is_dry_run():
        from trainer.tools.dry_run import dry_run as act  # later still: it imports torch
    else:
        from trainer.run import run as act
    if lone:
        gc.freeze()  # neither the collector nor the end of the process looks through torch: 0.4 s
    return act(settings)


def main() -> None:
    """The command."""
    tell_ignored_ranks()
    find_own_packages()
    register_run_id()
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # on a busy machine, threads that spin while waiting cost 20 times
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler of torch prints lines of its own on stderr
    sys.argv[1:] = take_flag(absolute_config_path(sys.argv[1:]))
    train()


if __name__ == "__main__":
    end_process(run_cli(main, trains=True))
