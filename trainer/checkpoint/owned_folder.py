"""A run has its folder to its end: rank 0 holds the lock, and all ranks watch each other."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from trainer.checkpoint.snapshots import remove_orphans_of
from trainer.cli.run_folder import emptied_where_refused, removed_where_refused
from trainer.cli.version import version
from trainer.distributed.launch.folder_lock import PREDECESSOR, FolderLock, follow
from trainer.distributed.launch.launcher import rank, started_by
from trainer.distributed.peer import LostPeer
from trainer.distributed.rank_monitor import RankMonitor
from trainer.files.atomic import write_text
from trainer.lr import ConfigError


@contextmanager
def owned(lock: FolderLock, devices: int, nodes: int, timeout: float) -> Iterator[RankMonitor]:
    """The monitor of a run's processes while this run holds its folder: rank 0 locks it, the others follow.

    Raises:
        ConfigError: another run holds the folder.
    """
    with ExitStack() as stack:
        stack.enter_context(removed_where_refused(lock.folder))
        stack.enter_context(lock)
        stack.enter_context(emptied_where_refused(lock))
        child = started_by() == "cadence"  # of a rank 0 that has locked the folder
        if child:
            stack.enter_context(follow(lock.folder))
        monitor = stack.enter_context(RankMonitor(devices, nodes, timeout, partial(_leave_result, lock)))
        if rank() == 0:
            lock.acquire()
            remove_orphans_of(lock.folder, owned=lock.exclusive)
            monitor.let_others_begin()
        elif not child:
            monitor.wait_to_begin(2 * PREDECESSOR)
        yield monitor


@contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Refuse a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        why = f"{folder} cannot be written ({error.strerror or error})"
        raise ConfigError(f"{why}: choose another folder, by name or hydra.run.dir.") from error


def _leave_result(lock: FolderLock, lost: LostPeer) -> None:
    """Write the result of a run that has lost a rank, where no other run has the folder."""
    folder = lock.folder
    holder = lock.holder()
    if lock.file is None and (holder.get("host"), holder.get("pid")) != (lost.peer.host, lost.peer.pid):
        return
    result = {"status": "failed", "error": lost.text, "metrics": {}, "folder": str(folder)}
    result["versions"] = version()
    write_text(folder / "result.json", json.dumps(result, indent=2) + "\n")
