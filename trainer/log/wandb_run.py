"""The log as a run of Weights & Biases, by default offline: files in the run folder that a person may upload."""

import csv
import json
import math
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from trainer.files.atomic import write_text
from trainer.log.run_logger import RunLogger
from trainer.log.table import CSV, FILE
from trainer.lr import ConfigError

NOTE = "cadence.json"


class WandB(RunLogger):
    """Logs every update to a run of Weights & Biases, on rank zero only. Its step is the number of the update.

    The run has the name of the folder, seen from where the command was started, and the config. `wandb/` in the folder
    has the files of W&B, and a table of the same rows. W&B can neither append to a run offline nor remove rows. So a
    run that goes on offline, or goes back, writes a new one with the rows of the table before; what was written before
    is renamed to `wandb/replaced-…`. It keeps its id unless the earlier rows were sent to a server already.

    Args:
        folder: the folder of the run.
        project: the project of W&B that gets the run.
        entity: the user or team, or null for your own.
        group: runs of one group are shown together.
        mode: `offline`, or `online` to send what is logged to the server at once.
        flush_seconds: how long rows of the table may wait in memory.

    Raises:
        ConfigError: `folder` cannot be written, `flush_seconds` is negative or not a number, or W&B refuses the run,
            such as online without a key.
    """

    failures = Exception

    def __init__(
        self,
        folder: str,
        project: str = "cadence",
        entity: str | None = None,
        group: str | None = None,
        mode: Literal["offline", "online"] = "offline",
        flush_seconds: float = 5.0,
    ) -> None:
        super().__init__()
        if mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would send its own errors to a server
        import wandb  # noqa: F401  late: it takes half a second, and is refused by name where it is missing

        self._folder = Path(folder).absolute()
        self._table = CSV(str(self._folder / "wandb"), flush_seconds)
        self._online = mode == "online"
        self._where: dict[str, Any] = {"project": project, "entity": entity, "group": group}
        self._params: dict[str, Any] = {}
        self._highest = -1
        self._newest = (-1, 0.0)
        self._run: Any = None
        self._begun = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`."""
        return self._run or self._begin()

    @property
    def name(self) -> str:
        """The project."""
        return str(self._where["project"])

    @property
    def version(self) -> str | None:
        """The id of the run, once it has begun."""
        return None if self._run is None else self._run.id

    @property
    def save_dir(self) -> str:
        """The folder of the run, in which `wandb/` is made."""
        return str(self._folder)

    @rank_zero_only
    def log_updates(self, steps: Sequence[int], times: Sequence[float], columns: Mapping[str, Sequence[Any]]) -> None:
        """Log n updates, each counted from 0, with the time of each in seconds and the n values of each tag."""
        self._note(max(steps))
        self._table.log_updates(steps, times, columns)
        for i, (step, wall_time) in enumerate(zip(steps, times, strict=True)):
            row = {tag: column[i] for tag, column in columns.items() if column[i] is not None}
            self.experiment.log({"_timestamp": wall_time, **row}, step=step)
            self._newest = (step, wall_time)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log `metrics` at `step`; Lightning's own `epoch` is left out."""
        if step is None:
            raise ValueError(f"log_metrics({list(metrics)}) has no step: pass the number of the update.")
        if kept := {tag: float(value) for tag, value in metrics.items() if tag != "epoch"}:
            self._note(step)
            self._table.log_metrics(kept, step)
            time_of_row = {"_timestamp": self._newest[1]} if step == self._newest[0] else {}
            self.experiment.log({**time_of_row, **kept}, step=step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Keep the config that the run gets when it begins."""
        self._params |= vars(params) if isinstance(params, Namespace) else params

    @rank_zero_only
    def restart(self, step: int) -> None:
        """Go on at update `step`, or begin: rows from `step` on are dropped."""
        self._finish(0)
        self._table.save()
        self._table.restart(step)
        self._begin(step)

    @rank_zero_only
    def save(self) -> None:
        """Write the rows of the table; W&B writes its own at once."""
        self._table.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the rows of the table."""
        self.save()

    @rank_zero_only
    def end(self, status: str) -> None:
        """End the run, as completed or failed."""
        self._table.end(status)
        self._finish(0 if status == "completed" else 1)

    def abandon(self) -> None:
        """Drop what waits."""
        self._table.abandon()

    def _begin(self, before: float = math.inf) -> Any:
        """Begin a run with the rows of the table; online go on with the earlier one if it has no row from `before` on.

        Offline, the files of the earlier run get another name.
        """
        earlier = self._earlier()
        appends = bool(earlier) and self._online and earlier["online"] and self._highest < before
        kept = appends or (bool(earlier) and not self._sent(earlier))
        self._put_aside()
        self._run = self._opened(earlier["id"] if kept else None, appends)
        self._begun = True
        for step, row in () if appends else self._rows_of_table():
            self._run.log(row, step=step)
        self._highest = int(min(self._highest, before - 1)) if earlier else -1
        self._write_note()
        return self._run

    def _opened(self, name: str | None, appends: bool) -> Any:
        import wandb
        from wandb.errors import UsageError

        here = Path.cwd()
        folder = self._folder.relative_to(here) if self._folder.is_relative_to(here) else self._folder
        try:
            return wandb.init(
                **self._where,
                id=name,
                name=str(folder),
                dir=str(self._folder),
                config=self._params,
                mode="online" if self._online else "offline",
                resume="allow" if appends else None,
                settings=wandb.Settings(silent=not self._online, console="off"),
                reinit="create_new",
            )
        except UsageError as error:  # such as a missing key; a server that does not answer is another
            if self._begun:
                raise
            why = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(f"logger.wandb cannot begin a run: {why}, or take logger.wandb.mode=offline.") from error

    def _finish(self, code: int) -> None:
        if self._run is not None:
            self._run.finish(exit_code=code)
            self._run = None

    def _earlier(self) -> dict[str, Any]:
        """What is noted of the earlier run of this folder; empty where there is none."""
        try:
            noted = json.loads((self._folder / "wandb" / NOTE).read_text(encoding="utf-8"))
            known = noted["folder"] == str(self._folder) and noted["where"] == self._where
            self._highest = int(noted["highest"])
            return noted if known else {}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}

    def _sent(self, earlier: Mapping[str, Any]) -> bool:
        """Whether rows of the earlier run are on a server."""
        return earlier["online"] or any((self._folder / "wandb").glob(f"*-{earlier['id']}/*.synced"))

    def _put_aside(self) -> None:
        """Rename the files of earlier offline runs of this folder that were not uploaded."""
        for path in (self._folder / "wandb").glob("offline-run-*"):
            if not any(path.glob("*.synced")):
                path.rename(path.with_name(path.name.replace("offline", "replaced", 1)))

    def _rows_of_table(self) -> Iterator[tuple[int, dict[str, float]]]:
        """The rows of the table."""
        self._table.save()
        if not (path := Path(self._table.save_dir, FILE)).exists():
            return
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                step, wall_time = int(row.pop("step")), float(row.pop("time"))
                yield step, {"_timestamp": wall_time, **{tag: float(cell) for tag, cell in row.items() if cell}}

    def _note(self, step: int) -> None:
        """Note the highest step before it is sent: a kill may come in between."""
        _ = self.experiment
        if self._online and step > self._highest:
            self._highest = step
            self._write_note()

    def _write_note(self) -> None:
        noted = {"id": self._run.id, "online": self._online, "where": self._where}
        noted |= {"folder": str(self._folder), "highest": self._highest}
        write_text(self._folder / "wandb" / NOTE, json.dumps(noted, indent=2) + "\n")
