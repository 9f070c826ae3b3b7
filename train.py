"""Train a model, the learning rate decided in the open.

python train.py optimizer=adamw schedule=cosine_warmup     see --help for what can be chosen

The same as `cadence train`, from a checkout that is not installed.
"""

from trainer.distributed.launch.signals import handle_signals
from trainer.distributed.launch.starting import pause_collector, tell_starting

if __name__ == "__main__":
    handle_signals()  # before the imports that take seconds
    tell_starting()
    pause_collector()

from cadence.train import main  # noqa: E402
from trainer.cli.process_end import end_process  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402

if __name__ == "__main__":
    end_process(run_cli(main, trains=True))
