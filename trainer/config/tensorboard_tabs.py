"""What a run shows in the tabs of TensorBoard beside its scalars."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.log.tensorboard import TensorBoard
from trainer.log.validations import main_scores
from trainer.resume.changes import flat


def charts_of(metrics: Sequence[str]) -> dict[str, list[str]]:
    """The charts of the Custom Scalars tab of TensorBoard: learning rates, losses, scores."""
    scores = {name: [rf"^val/{re.escape(name)}(/|$)"] for name in metrics}
    return {"learning rate": ["^lr/"], "loss": ["^(train|val)/loss$"], **scores}


def text_of(rows: Sequence[tuple[str, str]], command: str, config: str) -> str:
    """The Text tab: the table at the start of the run, its command and its config."""
    return f"{_table(rows)}\n\n```sh\n{command}\n```\n\n```yaml\n{config}```"


def log_end(
    logger: TensorBoard, config: Mapping[str, Any], scores: Mapping[str, float], step: int, completed: bool
) -> None:
    """Log the scores of the best checkpoint and of the test, as a text and in the HParams tab, and close the log."""
    if scores:
        logger.log_text("scores", _table([(name, f"{value:#.6g}") for name, value in scores.items()]), step)
    logger.log_hparams(hparams_of(config, main_scores(scores)), step, completed)
    logger.close()


def hparams_of(config: Mapping[str, Any], scores: Mapping[str, float]) -> dict[str, Any]:
    """The columns of a run in the HParams tab: settings that have a value, and the scores of the best checkpoint.

    TensorBoard shows five columns, those that differ between runs first, and its own metrics are tags by alphabet,
    which begin with the rates. So the scores are columns beside the settings.
    """
    settings = {key: value for key, value in flat(config).items() if value not in (None, {}, [], "")}
    kinds = {
        key[: -len("._target_")]: str(settings[key]).rpartition(".")[2] for key in settings if key.endswith("._target_")
    }
    plain = {key: value for key, value in settings.items() if not key.rpartition(".")[2].startswith("_")}
    return {**kinds, **plain, **{f"score {name}": value for name, value in scores.items()}}


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in [("", ""), ("---", "---"), *rows])
