"""Train a model, the learning rate decided in the open.

python train.py optimizer=adamw schedule=cosine_warmup     see --help for what can be chosen
"""

import os
import sys

from trainer.distributed.launch.signals import watch

if __name__ == "__main__":
    watch()  # before the imports that take seconds

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from trainer.cli.run_cli import guarded  # noqa: E402
from trainer.cli.run_id import register  # noqa: E402

register()
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine, threads that spin while waiting cost 20 times


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Assemble what the config names, train it, and leave a result in the run's folder."""
    from trainer.run import run  # late: composing a config needs no torch

    run(cfg)


if __name__ == "__main__":
    sys.exit(guarded(main))
