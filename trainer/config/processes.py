"""What the processes of a run compare at its start, and what is left of the run where one of them is lost."""

import hashlib
import json
import platform
from array import array
from importlib.metadata import version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import Strategy

from trainer.cli.version import version as running_version
from trainer.config.settings import TrainerSettings, trainer_settings
from trainer.distributed.ddp import MonitoredDDP
from trainer.distributed.fsdp import MonitoredFSDP
from trainer.distributed.peer import LostPeer
from trainer.distributed.rank_monitor import RankMonitor
from trainer.lr import Plan
from trainer.resume.changes import flat

MAY_DIFFER = ("data.path", "trainer.threads", "resume.path")
"""Settings of one host: where it keeps the data and the run, and how many threads it has."""
ROOMS = ("trainer", "models", "data")
"""Where the source files of a run lie."""


def claims(cfg: DictConfig, plan: Plan) -> dict[str, str]:
    """The config, what the plan comes to, and what runs it: short texts by name, alike on all ranks."""
    config = flat(OmegaConf.to_container(cfg, resolve=True))
    curves = hashlib.sha256(b"".join(array("d", curve).tobytes() for curve in plan.curves.values())).hexdigest()[:12]
    length = plan.horizon
    return {
        **{key: str(value) for key, value in config.items() if key not in MAY_DIFFER},
        "the plan": f"{curves} of {length.total} updates of {length.batch_size}",
        **{name: version(name) for name in ("torch", "pytorch-lightning")},
        "python": platform.python_version(),
        "the code": _code(),
    }


def watch_over(cfg: DictConfig, folder: Path) -> RankMonitor:
    """The watch over the processes of a run, which leaves a result where none of them can."""
    settings = trainer_settings(cfg)

    def leave_result(lost: LostPeer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        result = {"status": "failed", "error": lost.text, "metrics": {}, "folder": str(folder)}
        result["versions"] = running_version()
        (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    return RankMonitor(settings.devices, settings.nodes, settings.timeout, leave_result)


def strategy(settings: TrainerSettings, monitor: RankMonitor | None) -> Strategy | str:
    """One process, or several that exchange gradients and each hold all weights, or a part of them."""
    if settings.world == 1 and settings.strategy == "auto":
        return "auto"
    kind = MonitoredFSDP if settings.strategy == "fsdp" else MonitoredDDP
    return kind(monitor, settings.timeout, settings.threads)


def _code() -> str:
    """A hash of the source files of the engine, the models and the data: two hosts may have two versions."""
    root, found = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        found.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:12]
