"""Where a study is kept: a journal file of one driver, or a database that many share."""

import random
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import StudyDirection

from trainer.lr import ConfigError

optuna.logging.set_verbosity(optuna.logging.WARNING)
ATTEMPTS = 6
"""How often a driver tries to make the tables of a database: of several that start at once, only one can."""


class NoLock(BaseJournalFileLock):
    """No lock: the driver has locked its whole folder, and a lock file would stay behind when it is killed."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def journal(path: Path) -> JournalStorage:
    """The journal at `path`: each record is on disk before the search goes on.

    A last record that a kill has cut short is dropped: nothing depends on it.
    """
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=NoLock()))


def database(url: str, heartbeat: int) -> RDBStorage:
    """The database at `url`; a trial without a sign of life for five times `heartbeat` seconds is lost."""
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    if "://" not in url:
        raise ConfigError(f"hydra.sweeper.storage={url} is not a URL: give postgresql://USER@HOST/DATABASE, or null")
    plain = f"postgresql+psycopg{url.removeprefix('postgresql')}" if url.startswith("postgresql://") else url
    for attempt in range(ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return RDBStorage(
                    plain,
                    engine_kwargs={"pool_pre_ping": True},
                    heartbeat_interval=heartbeat,
                    grace_period=5 * heartbeat,
                )
        except (ArgumentError, ImportError) as error:
            raise ConfigError(
                f"hydra.sweeper.storage={without_password(url)} cannot be used: {_first_line(error)}"
            ) from error
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if attempt == ATTEMPTS - 1 or _first_line(error.__cause__ or error).startswith(
                "(psycopg.OperationalError)"
            ):
                reason = _first_line(error.__cause__ or error)
                raise ConfigError(
                    f"hydra.sweeper.storage={without_password(url)} cannot be reached: {reason}"
                ) from error
            time.sleep(random.uniform(0.2, 1.0))
    raise AssertionError


def without_password(url: str) -> str:
    """The URL without its password."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url.rpartition("@")[2]


def open_study(storage: BaseStorage, name: str, directions: Sequence[str], search: dict[str, Any]) -> optuna.Study:
    """The study `name`, made if missing. Raises ConfigError where it was made for another search."""
    optuna_directions = [
        StudyDirection.MINIMIZE if direction == "min" else StudyDirection.MAXIMIZE for direction in directions
    ]
    if name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
    else:
        study = optuna.create_study(storage=storage, study_name=name, directions=optuna_directions, load_if_exists=True)
    before = study.user_attrs.get("search")
    if before is None:
        study.set_user_attr("search", search)
        before = search
    for key, value in search.items():
        if before.get(key) != value:
            raise ConfigError(
                f"the study {name} was a search with {key} {_format(before.get(key))} and is now one with "
                f"{_format(value)}: give the same command to go on, or another name"
            )
    return study


def _format(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
