"""The log as a run of MLflow, in a database on this machine or on a server."""

import fcntl
import json
import logging
import math
import os
import re
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from trainer.files.atomic import write_text
from trainer.log.run_logger import RunLogger, check_writable
from trainer.lr import ConfigError

FILE = "mlflow.json"
DEFAULT = "sqlite:///mlflow.db"
ENDED = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
MOST_METRICS, MOST_PARAMS, LONGEST_PARAM = 1000, 100, 6000
"""What MLflow takes in a batch, and the longest text of a parameter."""
HOW_IT_BEGAN = "resume."
"""Parameters that say how a process began, which may differ from one to the next."""

Point = tuple[str, float, int, int]
"""Tag, value, time in milliseconds, step."""


class MLflow(RunLogger):
    """Logs every update to a run of MLflow, on rank zero only.

    The run has the name of the folder, seen from where the command was started, and the config as its parameters.
    `mlflow.json` in the folder says which run it is. MLflow cannot remove points. So a run that goes back, or goes on
    with another config, becomes a new run with a copy of the points before; the earlier one is marked as deleted, and
    `mlflow gc` or `mlflow runs restore` may act on it.

    Args:
        folder: the folder of the run.
        experiment: the experiment of MLflow that gets the run; it is made where there is none.
        uri: the address of the store, such as `sqlite:///PATH.db` or `http://HOST:PORT`. By default that of
            MLFLOW_TRACKING_URI, or else `sqlite:///mlflow.db`, in the folder where the command was started.
        flush_seconds: how long points may wait in memory.

    Raises:
        ConfigError: `uri` cannot be a store or be written, or `flush_seconds` is negative or not a number.
    """

    failures = Exception

    def __init__(
        self, folder: str, experiment: str = "cadence", uri: str | None = None, flush_seconds: float = 5.0
    ) -> None:
        super().__init__()
        if not flush_seconds >= 0:
            raise ConfigError(f"flush_seconds={flush_seconds} is not a time: give seconds, 0 or more")
        import mlflow  # noqa: F401  late: it takes a second, and is refused by name where it is missing

        self._folder = Path(folder).absolute()
        self._experiment = experiment
        self._uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT
        self._flush_seconds, self._flushed = flush_seconds, time.monotonic()
        self._params: dict[str, str] = {}
        self._points: list[Point] = []
        self._highest = -1
        self._run: str | None = None
        self._client: Any = None
        if getattr(rank_zero_only, "rank", 0) == 0:
            self._client = _client(self._uri)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `MlflowClient` that the run is logged with."""
        return self._client

    @property
    def name(self) -> str:
        """The experiment."""
        return self._experiment

    @property
    def version(self) -> str | None:
        """The id of the run, once it has begun."""
        return self._run

    @property
    def run_id(self) -> str | None:
        """The id of the run, once it has begun."""
        return self._run

    @rank_zero_only
    def log_updates(self, steps: Sequence[int], times: Sequence[float], columns: Mapping[str, Sequence[Any]]) -> None:
        """Log n updates, each counted from 0, with the time of each in seconds and the n values of each tag."""
        for i, (step, wall_time) in enumerate(zip(steps, times, strict=True)):
            row = {tag: column[i] for tag, column in columns.items() if column[i] is not None}
            self._add(row, wall_time, step)
        self._flush_if_due()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log `metrics` at `step`; Lightning's own `epoch` is left out."""
        if step is None:
            raise ValueError(f"log_metrics({list(metrics)}) has no step: pass the number of the update.")
        self._add({tag: value for tag, value in metrics.items() if tag != "epoch"}, time.time(), step)
        self._flush_if_due()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Keep the parameters that the run gets when it begins."""
        given = vars(params) if isinstance(params, Namespace) else params
        self._params |= {_name(key): str(value)[:LONGEST_PARAM] for key, value in given.items()}

    @rank_zero_only
    def restart(self, step: int) -> None:
        """Go on at update `step`, or begin: points from `step` on are dropped."""
        self._points = [point for point in self._points if point[3] < step]
        self.save()
        self._begin(step)

    @rank_zero_only
    def save(self) -> None:
        """Send all points."""
        self._flushed = time.monotonic()
        if not self._points:
            return
        if self._run is None:
            self._begin()
        points, self._points = self._points, []
        if (highest := max(point[3] for point in points)) > self._highest:
            self._remember(highest)  # before they are sent: a kill may come in between
        self._send(self._run, points)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send all points; of a fit that failed, end the run."""
        self.save()
        if status == "failed" and self._run is not None:
            self._client.set_terminated(self._run, ENDED[status])

    @rank_zero_only
    def end(self, status: str) -> None:
        """Send all points and end the run."""
        self.save()
        if self._run is not None:
            self._client.set_terminated(self._run, ENDED.get(status, "FAILED"))

    def abandon(self) -> None:
        """Drop what waits."""
        self._points = []

    def _add(self, row: Mapping[str, Any], wall_time: float, step: int) -> None:
        at = int(1000 * wall_time)
        self._points += [(_name(tag), float(value), at, step) for tag, value in row.items()]

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._flushed >= self._flush_seconds or len(self._points) >= 50 * MOST_METRICS:
            self.save()

    def _begin(self, before: float = math.inf) -> None:
        """Go on with the run of the folder if it has no point from `before` on, or with a copy, or with a new one."""
        old = self._earlier()
        if old is None:
            self._run = self._created()
        elif self._highest < before and not self._changed(old.data.params):
            self._run = old.info.run_id
            self._client.update_run(self._run, status="RUNNING")
            self._set_params({key: text for key, text in self._params.items() if key not in old.data.params})
        else:
            self._run = self._copied(old, before)
        self._remember(int(min(self._highest, before - 1)))

    def _changed(self, logged: Mapping[str, str]) -> bool:
        """Whether a parameter has another value than the one logged, which MLflow would keep."""
        return any(
            logged.get(key, text) != text for key, text in self._params.items() if not key.startswith(HOW_IT_BEGAN)
        )

    def _earlier(self) -> Any:
        """The run that `mlflow.json` names, if it is in this store and belongs to this folder."""
        try:
            noted = json.loads((self._folder / FILE).read_text(encoding="utf-8"))
            known = (noted["uri"], noted["folder"]) == (self._uri, str(self._folder))
            run, self._highest = self._client.get_run(noted["run_id"]) if known else None, int(noted["highest"])
        except (FileNotFoundError, ValueError, KeyError, TypeError, _missing()):
            run = None
        if run is None or run.info.lifecycle_stage != "active":
            self._highest = -1
            return None
        return run

    def _created(self, tags: Mapping[str, str] | None = None, since: int | None = None) -> str:
        here = Path.cwd()
        name = self._folder.relative_to(here) if self._folder.is_relative_to(here) else self._folder
        made = self._client.create_run(_experiment_id(self._client, self._experiment), since, tags, str(name))
        self._run = made.info.run_id
        self._set_params(self._params)
        return made.info.run_id

    def _copied(self, old: Any, before: float) -> str:
        """A new run with the points of `old` before `before`, in its place."""
        tags = {key: text for key, text in old.data.tags.items() if key != "mlflow.runName"}
        new = self._created(tags, old.info.start_time)
        for tag in old.data.metrics:
            history = self._client.get_metric_history(old.info.run_id, tag)
            self._send(new, [(tag, one.value, one.timestamp, one.step) for one in history if one.step < before])
        self._client.delete_run(old.info.run_id)
        return new

    def _remember(self, highest: int) -> None:
        self._highest = highest
        noted = {"uri": self._uri, "run_id": self._run, "folder": str(self._folder), "highest": highest}
        write_text(self._folder / FILE, json.dumps(noted, indent=2) + "\n")

    def _set_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for part in _parts([Param(key, text) for key, text in params.items()], MOST_PARAMS):
            self._client.log_batch(self._run, params=part)

    def _send(self, run: str | None, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        for part in _parts([Metric(*point) for point in points], MOST_METRICS):
            self._client.log_batch(run, metrics=part)


def _client(uri: str) -> Any:
    """A client for a store; that of a file is made if it is missing."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    database = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    try:
        if database is None:
            return MlflowClient(uri)
        check_writable(database.parent)
        with _locked(database.with_name(f".{database.name}.lock")):  # two jobs that begin would both make its tables
            return MlflowClient(uri)
    except MlflowException as error:
        why = " ".join(str(error).split()).partition(". ")[0]
        raise ConfigError(f"uri={uri} cannot be a store of MLflow: {why}: give one such as {DEFAULT}.") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _experiment_id(client: Any, name: str) -> str:
    """The id of an experiment, which is made if it is missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except MlflowException:  # another job was faster
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise ConfigError(f"logger.mlflow.experiment={name} is deleted in MLflow: restore it, or give another name.")
    return found.experiment_id


def _missing() -> type[Exception]:
    """The error of MLflow for a run that is not in its store."""
    from mlflow.exceptions import MlflowException

    return MlflowException


def _parts(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + most] for i in range(0, len(items), most))


def _name(tag: str) -> str:
    """A tag with `_` for what MLflow does not take in a name."""
    return re.sub(r"[^\w\-. :/]", "_", tag, flags=re.ASCII)
