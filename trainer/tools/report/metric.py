"""Which metric runs are judged by, and whether less or more of it is better."""

from collections import Counter
from collections.abc import Sequence

from trainer.lr import ConfigError
from trainer.tools.report.runs import Run

FALLING = ("loss", "error", "perplexity", "mse", "mae", "rmse", "nll", "distance", "hamming", "calibration", "mape")
RISING = ("accuracy", "f1", "fbeta", "precision", "recall", "auroc", "auc", "dice", "iou", "jaccard", "r2", "psnr")
RISING_TOO = ("specificity", "kappa", "matthews", "bleu", "rouge", "map", "ssim", "exact_match", "correlation")


def chosen(runs: Sequence[Run], asked: str | None) -> str:
    """The metric asked for, or the one that most runs chose their best checkpoint by."""
    completed = [run for run in runs if run.status == "completed"]
    known = Counter(metric for run in completed for metric in run.metrics)
    if not known:
        states = ", ".join(f"{count} {status}" for status, count in Counter(run.status for run in runs).items())
        raise ConfigError(f"none of {len(runs)} runs has a result with metrics ({states}): wait for one to complete.")
    if asked is not None:
        if asked not in known:
            raise ConfigError(f"--metric={asked} is in no result: choose one of {', '.join(sorted(known))}.")
        return asked
    judges = Counter(str((run.result.get("best") or {}).get("metric")) for run in completed if _has_best(run))
    return max((name for name in judges if name in known), key=judges.__getitem__, default=max(known, key=known.get))  # type: ignore[arg-type]


def _has_best(run: Run) -> bool:
    return isinstance(run.result.get("best"), dict)


def direction(metric: str, runs: Sequence[Run]) -> str:
    """min or max: as the task says it of what it watches, else by the name."""
    word = metric.rpartition("/")[2].lower()
    for run in runs:
        if run.config.get("task.monitor") == word and run.config.get("task.mode") in ("min", "max"):
            return str(run.config["task.mode"])
    for mode, names in (("min", FALLING), ("max", (*RISING, *RISING_TOO))):
        if any(name in word for name in names):
            return mode
    raise ConfigError(f"nothing says whether more of {metric} is better: give --best min or --best max.")
