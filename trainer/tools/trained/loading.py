"""`load`: the run in a folder, with the net that it has trained."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn
from torch.random import fork_rng

from trainer.checkpoint.io import BEST, checkpoints_in, read
from trainer.cli.compose import find_own_packages
from trainer.cli.run_id import register_run_id
from trainer.config.components import may_occur, task_of
from trainer.config.instantiate import instantiate
from trainer.config.model_data import build_net, read_data
from trainer.config.prepared_net import prepared_net
from trainer.config.settings import Settings, settings_of
from trainer.engine.module import Module
from trainer.engine.step import PairStep
from trainer.engine.task import Task
from trainer.engine.train_spec import TrainSpec
from trainer.files.plain import read_text
from trainer.log.scalars import scalars
from trainer.log.validations import read_validations
from trainer.lr import ConfigError, Horizon, LRPolicy, Warmup
from trainer.measure.observers import ObserverSpec
from trainer.tools.trained.batches import batches_of, on_device, split_of
from trainer.tools.trained.choices import WHICH
from trainer.tools.trained.exporting import FORMATS, export, is_state
from trainer.tools.trained.other_data import other_data
from trainer.tools.trained.prediction import predictions
from trainer.tools.trained.scoring import quiet, scores
from trainer.tools.writable import check_new_file

ALONE = {
    **{"devices": 1, "nodes": 1, "strategy": "auto", "accumulate": 1},
    **{"compile": False, "cuda_graph": False, "sync_batchnorm": False},
}
"""Settings of `trainer` with which one process uses a net that any number of them has trained."""


@dataclass(frozen=True)
class History:
    """What the log of a run holds, update by update: the rates by group, the losses; and the scores by validation.

    The log has single precision. It is empty for a run without `logger=tensorboard`.
    """

    updates: list[int]
    lrs: Mapping[str, list[float]]
    losses: list[float]
    validations: list[dict[str, Any]]


class Run:
    """A run that has been trained, in its folder; `checkpoint` is the file whose weights the net has.

    `allow`: packages that its config may call; what the folder itself allows does not count.
    """

    def __init__(
        self, folder: Path, checkpoint: Path, device: str | torch.device | None = None, allow: Sequence[str] = ()
    ) -> None:
        self.folder, self.checkpoint, self.allow = folder, checkpoint, list(allow)
        self._content = read(checkpoint, "checkpoint")
        self._saved: dict[str, Any] = self._content["cadence"]
        self._device = device

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.checkpoint.name!r})"

    @property
    def net(self) -> nn.Module:
        """The net, in evaluation mode, on the device of this run."""
        return self.module.net

    @property
    def updates(self) -> int:
        """The updates that the weights have had."""
        return int(self._saved["updates"])

    @cached_property
    def config(self) -> DictConfig:
        """The config of the run, resolved; what came from the environment is read from that of now."""
        config: DictConfig = OmegaConf.create(self._saved["config"])
        return config

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of `result.json`; None while the run goes on."""
        path = self.folder / "result.json"
        return json.loads(read_text(path)) if path.is_file() else None

    @property
    def history(self) -> History:
        """Updates, rates, losses and validations, as they are in the log by now."""
        logged = scalars(self.folder, ("lr/", "train/loss"))
        losses = logged.get("train/loss", [])
        rates = {tag[3:]: [value for _, value in points] for tag, points in logged.items() if tag.startswith("lr/")}
        validations = read_validations(self.folder)
        return History([t for t, _ in losses], rates, [loss for _, loss in losses], validations)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in the order of the outputs; empty where the data has none."""
        return list(getattr(self._data_facts, "class_names", None) or ())

    @cached_property
    def settings(self) -> Settings:
        """The settings for one process."""
        cfg = self.config.copy()
        for name, value in ALONE.items():
            cfg.trainer[name] = value
        cfg.allow = self.allow
        return settings_of(cfg)

    @cached_property
    def data(self) -> Any:
        """The data module of the run, with its data read."""
        return read_data(self.settings, self._content)

    @cached_property
    def trainer(self) -> pl.Trainer:
        """Lightning's trainer, which knows the device and the precision, and scores."""
        with quiet():
            return pl.Trainer(
                **_accelerator(self._device, self.settings.trainer.accelerator),
                precision=self.settings.trainer.precision,  # type: ignore[arg-type]
                logger=False,
                plugins=[LightningEnvironment()],  # else Lightning asks for what a job of Slurm has left
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )

    @property
    def device(self) -> torch.device:
        """Where the net is."""
        return self.trainer.strategy.root_device

    @cached_property
    def module(self) -> Module:
        """The net with its step and its scores, as in training, with the weights of the checkpoint."""
        settings = self.settings
        adapted = bool(settings.adapter)
        with fork_rng():  # only below an adapter are the initial weights those of the run
            if adapted:
                torch.manual_seed(settings.seed)
            net, origin = prepared_net(build_net(settings, self._data_facts.shape), settings, read=adapted)
        if origin.base != self._saved.get("base"):
            raise ConfigError(
                f"checkpoint={self.checkpoint} has an adapter for frozen weights with the hash "
                f"{self._saved.get('base')}, and config and init.path now give {origin.base}: bring those back."
            )
        module = Module(net, self._task, _spec(self.updates, settings.global_batch))
        self.trainer.precision_plugin.convert_module(module)  # before loading: otherwise float64 would be rounded
        _load(module, self._content["state_dict"], self.checkpoint)
        weights = {name[4:]: value for name, value in self._content["state_dict"].items() if name.startswith("net.")}
        module.hooks.load_state_dict(self._content.get("hooks", {}), weights)
        module.clock.t = (self.result or {}).get("updates", self.updates)  # a run is tested at its end
        return module.to(self.device).eval()

    @cached_property
    def _task(self) -> Task:
        return task_of(self.settings, self._data_facts)

    @cached_property
    def _data_facts(self) -> Any:
        """What net and task need of the data of the run: its `shape` and `class_names`."""
        if "shape" not in self._saved:
            return self.data
        return SimpleNamespace(shape=self._saved["shape"], class_names=self._saved.get("class_names", ()))

    def other_data(
        self, *overrides: str, config_dir: str | Path | None = None, purpose: Literal["test", "predict"] = "predict"
    ) -> Any:
        """A data module for `predict` and `test`, with its data read.

        Args:
            overrides: `data=NAME` for another one, `data.KEY=VALUE` for other settings of that of the run.
            config_dir: a folder with more options, as `--config-dir`.
            purpose: with "test", a table must have the column of targets.

        Raises:
            ConfigError: the data cannot be read, or has another shape than that of the run.
        """
        folder = None if config_dir is None else Path(config_dir)
        return other_data(self.settings, self._data_facts, self._content, overrides, folder, purpose)

    def predict(self, data: Any, batch_size: int | None = None) -> Any:
        """The outputs of the net for all samples, on the CPU, in the order of the data.

        Args:
            data: inputs (a tensor, or a nest of tensors), a data set, a DataLoader, a LightningDataModule, or the name
                of a split of the run's own data: "train", "val", "test". Of pairs, the inputs are the first.
            batch_size: for inputs and data sets; None: `data.eval_batch_size` of the run.

        Raises:
            ConfigError: the data is missing or empty, or the step of the run gives no outputs.
        """
        return predictions(self.module, self.trainer, self._batches(data, batch_size, "predict"))

    def test(self, data: Any = "test", batch_size: int | None = None) -> dict[str, float]:
        """The loss and the metrics over all samples, computed as in training: means by the weights of the step.

        Args:
            data: as for `predict`, with targets.
            batch_size: as for `predict`.

        Raises:
            ConfigError: the data is missing or empty.
        """
        module = self.module
        for stage in module.scores:
            module.scores[stage] = module.hooks.scores(self._task, stage)  # without the precision of earlier data
        if not isinstance(data, str):
            return scores(module, self.trainer, self._batches(data, batch_size))
        stage, loader = "val" if data == "val" else "test", split_of(self.data, data)
        given = on_device(loader, self.device) if data == "train" else self.data  # which makes the same loader
        return scores(module, self.trainer, given, stage, partial(may_occur, self.data))

    def export(self, path: str | Path, *, sample: Any = None, force: bool = False) -> Path:
        """Write the net to a file; see `trainer.tools.trained.exporting`.

        Args:
            path: NAME.pt (a state_dict), NAME.safetensors, NAME.pt2 (torch.export) or NAME.onnx.
            sample: inputs of the net to trace it with; None: the first validation samples of the run's data.
            force: write over a file that is there.
        """
        target = Path(path)
        check_new_file(target, FORMATS, force)
        inputs = None if is_state(target) else self._sample(sample)
        export(_merged(self.net), inputs, target)
        return target

    def _batches(self, data: Any, batch_size: int | None, stage: str = "test") -> Iterator[Any]:
        """The batches of data in any form, on the device."""
        if isinstance(data, str):
            self.data.trainer = self.trainer  # its loaders ask for the device
            return on_device(split_of(self.data, data), self.device)
        node = self.settings.data
        size = (node.get("eval_batch_size") or 4 * node["batch_size"]) if batch_size is None else batch_size
        collate = node.get("collate_fn") and instantiate(node["collate_fn"], "data.collate_fn", self.settings.allow)
        return on_device(batches_of(data, size, collate, stage), self.device)

    def _sample(self, given: Any) -> Any:
        """Inputs of the net on its device: those given, or those of the first batch of the run's data."""
        batch = given
        if given is None:
            batch = next(self._batches("val" if len(self.data.val_dataloader()) else "train", None))
            if isinstance(batch, list | tuple):
                batch = (batch[0],) if isinstance(self.module.step, PairStep) else batch[0]
        return self.trainer.precision_plugin.convert_input(next(on_device([batch], self.device)))


def load(
    folder: str | Path,
    which: str = "best",
    device: str | torch.device | None = None,
    allow: Sequence[str] = (),
) -> Run:
    """The run in a folder, also one that still goes on. Nothing that the folder brings along is run.

    Args:
        folder: the folder of the run, as `outputs/NAME`; or a checkpoint in its folder `checkpoints`.
        which: "best", the weights with the best validation score; "last", those that trained last.
        device: as torch names it; None: that of the run, or the CPU where this machine has none.
        allow: packages whose classes the net, the task and the data of the run may be, beside those of
            `CADENCE_ALLOW`; what the config of the folder allows does not count.

    Raises:
        ConfigError: the folder has no such checkpoint, or one that does not fit the code of the net.
    """
    register_run_id()
    given = Path(folder)
    find_own_packages(reading=given.resolve().parent.parent if given.suffix == ".ckpt" else given)
    if given.suffix == ".ckpt":
        return Run(given.resolve().parent.parent, given, device, allow)
    if which not in WHICH:
        raise ConfigError(f"which={which!r} is not known: choose {' or '.join(WHICH)}.")
    if not given.is_dir():
        raise ConfigError(f"{given} is not the folder of a run: there is no such folder.")
    checkpoints = given / "checkpoints"
    newest = checkpoints_in(checkpoints)
    if which == "best" and not (checkpoints / BEST).exists():
        instead = "take the last weights, which=last." if newest else "it has no checkpoint yet."
        raise ConfigError(f"{given} has no {BEST}, as a run has without validation: {instead}")
    if not (checkpoints / BEST).exists() and not newest:
        raise ConfigError(f"{given} has no checkpoint: name the folder of a run that has saved one.")
    return Run(given, checkpoints / BEST if which == "best" else newest[-1], device, allow)


def _accelerator(device: str | torch.device | None, configured: str) -> dict[str, Any]:
    """The arguments of Lightning's trainer for a device."""
    if device is None:
        gpu = configured != "cpu" and torch.accelerator.is_available()
        return {"accelerator": "gpu" if gpu else "cpu", "devices": 1}
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device!r} is not known to torch: take cpu, cuda or cuda:1.") from error
    if place.type != "cpu" and not torch.accelerator.is_available():
        raise ConfigError(f"device={device}: this machine has none: take cpu.")
    return {"accelerator": place.type, "devices": 1 if place.type == "cpu" else [place.index or 0]}


def _spec(updates: int, batch: int) -> TrainSpec:
    """What a module that is never trained needs of a training."""

    def no_optimizer() -> Any:
        raise ConfigError("a loaded run is not trained: go on with cadence train resume.path=CHECKPOINT.")

    policy = LRPolicy(1.0, 1.0, Warmup(0, lambda t: 1.0), lambda t: 1.0)
    observers = ObserverSpec((), 1, 1, None, None)
    return TrainSpec(policy, Horizon(max(1, updates), batch), no_optimizer, (), observers)


def _merged(net: nn.Module) -> nn.Module:
    """The net to export: with the adapter in its weights, where peft has made one."""
    return copy.deepcopy(net).merge_and_unload() if hasattr(net, "merge_and_unload") else net  # type: ignore[operator]


def _load(module: Module, state: Mapping[str, Any], path: Path) -> None:
    """Load the weights; refused where the code now makes another net."""
    own = module.state_dict()
    for name in [*own, *state]:
        shapes = [list(one[name].shape) if name in one else "none" for one in (state, own)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"checkpoint={path} has {name} with shape {shapes[0]} where the net of its config now has {shapes[1]}: "
                "load it with the code that trained it."
            )
    module.load_state_dict(state)
