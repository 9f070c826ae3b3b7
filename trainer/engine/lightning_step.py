"""The step of a user's LightningModule: its steps and hooks, in Lightning's order."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.engine.lightning_kind import check_ignored, check_replaced, overrides, positional
from trainer.engine.lightning_logs import LoggedValues, of_ranks, of_this_rank, score_name
from trainer.engine.lightning_optimizers import optimizers_of
from trainer.engine.manual_update import Turn, named_turns
from trainer.engine.run_hooks import RunHooks
from trainer.engine.step import HALF, StepOutput, tensors
from trainer.engine.task import Scores, Task
from trainer.engine.trainer_view import TrainerView, batch_of, epoch_of
from trainer.lr import ConfigError

_WORDS = {"val": "validation", "test": "test"}
_PLAIN = (bool, int, float, str, bytes, type(None), Tensor)


class LightningStep(RunHooks):
    """The loss that `training_step` of the net returns, a mean over samples; a dict has it as "loss".

    The net is a LightningModule of pytorch_lightning or lightning.pytorch. `self.trainer` in it is a `TrainerView`,
    and what it logs by `self.log` becomes `train/NAME`, `val/NAME` and `test/NAME`. Parts in `ignore` that a run
    replaces are left out: see `trainer.engine.lightning_kind.REPLACED`. Raises `ConfigError` for others. `optimizers`
    names those of a module that optimizes by hand, in their order, each with the entries of `Turn`.
    """

    logs_scores = True

    def __init__(self, ignore: Sequence[str] = (), optimizers: Mapping[str, Any] | None = None) -> None:
        check_ignored(ignore)
        self.ignore = tuple(ignore)
        self.given = {name: Turn.of(f"task.step.optimizers.{name}", one) for name, one in (optimizers or {}).items()}
        self.clocks: dict[str, int] = {}
        self.logged = {stage: LoggedValues(stage) for stage in ("train", "val", "test")}
        self._stage, self._quiet = "train", False
        self._hook: str | None = None
        self._ready: Any = None
        self._batch: Any = None
        self._index, self._first = 0, False
        self._outputs: dict[str, Any] | None = None
        self._row: dict[str, Tensor] = {}
        self._begun = self._told = False
        self._idle: list[Any] | None = None

    def connect(self, module: Any) -> None:
        """Connect the net of a run's `module` to the run."""
        self.run, self.net = module, module.net
        check_replaced(self.net, self.ignore)
        self._parameters = {name for name, _ in self.net.named_parameters()}
        self.view = TrainerView(module, {"lightning_module": self.net, "model": self.net})
        self._attach()

    def _attach(self) -> None:
        """Give the net our trainer, `self.log` and optimizers; as functions, which copies of the net may share."""
        net: Any = self.net
        net.trainer = self.view

        def log(name: str, value: Any, *given: Any, **options: Any) -> None:
            self._log(name, value, **dict(zip(("prog_bar", "logger", "on_step", "on_epoch"), given)), **options)

        net.log = log
        net.optimizers = lambda use_pl_optimizer=True: self._optimizers()
        net.lr_schedulers = lambda: self._schedulers()
        if self.optimizes_by_hand:
            net.manual_backward = lambda loss, *args, **kwargs: self.run.updater.manual_backward(loss, *args, **kwargs)
        if isinstance(getattr(net, "_device", None), torch.device):  # set by Lightning for its own class only
            for part in net.modules():
                if hasattr(part, "_device") and hasattr(part, "_dtype"):
                    part._device = self.run.device

    def scores(self, task: Task, stage: str) -> Scores:
        """The scores of a stage are what the module logs in it."""
        return LightningScores(task, self, stage)

    def scored(self, stage: str) -> bool:
        """Whether the module has a step for a stage."""
        return overrides(self.net, f"{_WORDS[stage]}_step")

    def score_name(self, name: str) -> str:
        """The name of a score that the module logs as `name`."""
        return score_name("val", name)

    @contextmanager
    def rehearsing(self) -> Iterator[None]:
        """Scores are kept apart and nothing is logged; `self.trainer.sanity_checking` is true."""
        kept, self.logged = self.logged, {stage: LoggedValues(stage) for stage in self.logged}
        scores, self.view.callback_metrics = self.view.callback_metrics, {}
        self.view.sanity_checking = True
        try:
            yield
        finally:
            self.view.sanity_checking = False
            self.logged, self.view.callback_metrics = kept, scores

    def call(self, hook: str, *arguments: Any) -> Any:
        """Call a hook of the module."""
        if hook == "setup":
            self._attach()
        elif hook == "on_train_end":
            self._tell_steps()
        elif hook == "on_fit_start":
            self._attach()
            self._begun, self.view.update = False, None
            self.view.optimizers = getattr(self.run.updater, "named", [self.run.updater.optimizer])
            if not self.run.clock.t:
                self.clocks = dict.fromkeys(self.clocks, 0)
        net: Any = self.net
        before, self._hook = self._hook, hook
        net._current_fx_name = hook
        try:
            made = getattr(net, hook)(*arguments)
        finally:
            self._hook = net._current_fx_name = before
        if hook == "setup" and (added := {name for name, _ in net.named_parameters()} - self._parameters):
            raise ConfigError(
                f"setup of {type(net).__name__} adds {min(added)}, and the optimizer was made before: "
                "add parameters in __init__ or configure_model."
            )
        return made

    def begin_update(self) -> None:
        """Begin an epoch if it is time, and write the rates, which the module may read."""
        epoch = epoch_of(self.run.horizon, self.run.clock.t)
        if epoch != self.view.epoch or not self._begun:
            self.end_epoch()
            self.view.epoch, self.view.update, self._begun = epoch, self.run.clock.t, True
            self.call("on_train_epoch_start")
        self.view.update = self.run.clock.t
        if not self.optimizes_by_hand:
            self.run.control.write(self.run.updater.optimizer, self.run.clock.at)

    def begin_batch(self, i: int, batch: Any) -> Any:
        """Call the hooks before a training step."""
        run = self.run
        self._index, self._first = batch_of(run.horizon, run.clock.t, run.spec.accumulate) + i, i == 0
        self._ready = self._batch = self._transferred(batch)
        if self._first:
            self.logged["train"].drop_steps()
        if self.call("on_train_batch_start", self._batch, self._index) == -1:
            raise ConfigError(
                f"on_train_batch_start of {type(self.net).__name__} ends the epoch by -1, and an epoch has a fixed "
                "number of updates: set trainer.duration."
            )
        return self._ready

    def __call__(self, net: nn.Module, batch: Any, *, t: int) -> StepOutput:
        """The loss of a training step; outside an update, as for sharpness, without hooks and logs."""
        if self.optimizes_by_hand:
            raise ConfigError(
                f"{type(self.net).__name__} optimizes by hand, and has no loss outside its updates: set "
                "average.recalibrate=0, and give the range test --loss train."
            )
        if batch is self._ready:
            return StepOutput(self._loss(batch, t))
        self._quiet = True
        try:
            return StepOutput(self._loss(self._transferred(batch), t))
        finally:
            self._quiet = False

    def _loss(self, batch: Any, t: int) -> Tensor:
        given = self._stepped("training_step", batch, self._index)
        loss = given.get("loss") if isinstance(given, Mapping) else given
        kind = type(self.net).__name__
        if loss is None:
            raise ConfigError(
                f"training_step of {kind} returns no loss for update {t}, and each update is made from its batch: "
                "return a loss, and leave such samples out of the data."
            )
        if not isinstance(loss, Tensor):
            raise ConfigError(
                f"training_step of {kind} returns {type(loss).__name__}: return a loss, or one in a dict."
            )
        if not self._quiet:
            self._outputs = {**(given if isinstance(given, Mapping) else {}), "loss": loss.detach()}
        return loss.float() if loss.dtype in HALF else loss

    def by_hand(self, batch: Any) -> Tensor | None:
        """Call the training step of a module that optimizes by hand; the loss that it returns, if any."""
        given = self._stepped("training_step", batch, self._index)
        self._outputs = dict(given) if isinstance(given, Mapping) else {} if given is None else {"loss": given}
        loss = self._outputs.get("loss")
        if not isinstance(loss, Tensor):
            return None
        self._outputs["loss"] = loss = loss.detach()
        return loss.float().reshape(())

    @property
    def optimizes_by_hand(self) -> bool:
        """Whether the module steps its optimizers itself."""
        return not self.net.automatic_optimization

    def turns(self, count: int) -> dict[str, Turn]:
        """The names of `count` optimizers of the module, and how often each steps."""
        found = named_turns(self.given, count)
        self.clocks = {name: self.clocks.get(name, 0) for name in found}
        return found

    def _tell_steps(self) -> None:
        """Say which optimizers have made other steps than were planned, in a whole run."""
        total, kind = self.run.horizon.total, type(self.net).__name__
        for name, turn in self.turns(len(self.clocks)).items() if self.run.clock.t >= total and self.clocks else ():
            if self.clocks[name] != turn.steps(total) and self.run.trainer.is_global_zero:
                print(
                    f"warning: {name} of {kind} made {self.clocks[name]} steps, and every={turn.every} plans "
                    f"{turn.steps(total)}, so its curve did not end: set task.step.optimizers.{name}.every.",
                    file=sys.stderr,
                )

    def _stepped(self, name: str, batch: Any, index: int) -> Any:
        """Call a step with as many of batch, batch_idx and dataloader_idx as it takes."""
        return self.call(name, *(batch, index, 0)[: positional(getattr(self.net, name))])

    def before_backward(self, loss: Tensor) -> None:
        if self._first:
            self.call("on_before_zero_grad", self.run.updater.optimizer)
            self._first = False
        self.call("on_before_backward", loss)

    def after_backward(self) -> None:
        self.call("on_after_backward")

    def before_step(self, optimizer: Optimizer) -> None:
        self.call("on_before_optimizer_step", optimizer)
        if not (self._told or self.optimizes_by_hand) and (other := self.run.control.overwritten(optimizer)):
            self._told = True
            if self.run.trainer.is_global_zero:
                print(f"warning: {type(self.net).__name__} writes a rate, without effect: {other}", file=sys.stderr)

    def with_logs(self, logs: Mapping[str, Tensor], loss: Tensor) -> Mapping[str, Tensor]:
        """The logs of an update; what the module logs at the end of the batch is added to them later."""
        self._row = {**logs, **self.logged["train"].step_means(loss)}
        return self._row

    def end_batch(self) -> None:
        """Call the hook after a training step."""
        self.call("on_train_batch_end", self._outputs, self._batch, self._index)
        if self._row:
            self._row.update(self.logged["train"].step_means(next(iter(self._row.values()))))
        self._ready = self._batch = self._outputs = None
        self._row = {}

    def end_epoch(self) -> None:
        """Call the hook at the end of an epoch that is over, and log its means."""
        t = self.run.clock.t
        if self.view.epoch is None or (epoch_of(self.run.horizon, t) == self.view.epoch and not self.run.over):
            return
        self.call("on_train_epoch_end")
        values = self.published("train", self.logged["train"].compute())
        self.view.epoch, self._begun = None, False
        for logger in self.run.trainer.loggers if values else ():
            logger.log_metrics({f"train/{name}": value for name, value in values.items()}, max(t - 1, 0))

    def score(self, stage: str, batch: Any, batch_idx: int, step: Callable[[Any], StepOutput]) -> StepOutput:
        """Call the step of a stage, and the hooks around it."""
        word = _WORDS[stage]
        with self._in(stage):
            self._batch = self._transferred(batch)
            self.call(f"on_{word}_batch_start", self._batch, batch_idx)
            given = self._stepped(f"{word}_step", self._batch, batch_idx)
            size = self._size()
            self.call(f"on_{word}_batch_end", given, self._batch, batch_idx)
        loss = given.get("loss") if isinstance(given, Mapping) else given
        found = loss.detach() if isinstance(loss, Tensor) and loss.numel() == 1 else None
        return StepOutput(found, size)  # type: ignore[arg-type]

    @contextmanager
    def _in(self, stage: str) -> Iterator[None]:
        before, self._stage = self._stage, stage
        try:
            yield
        finally:
            self._stage, self._batch = before, None

    def state_dict(self, net: nn.Module) -> dict[str, Any]:
        """The open epoch, and what `on_save_checkpoint` of the module adds."""
        weights = net.state_dict()
        theirs: dict[str, Any] = {
            "state_dict": dict(weights),
            "epoch": self.view.current_epoch,
            "global_step": self.view.global_step,
        }
        own = set(theirs)
        self.call("on_save_checkpoint", theirs)
        if theirs["state_dict"].keys() != weights.keys():
            raise ConfigError(
                f"on_save_checkpoint of {type(net).__name__} changes state_dict, and a checkpoint holds all weights: "
                "leave it as it is."
            )
        added = {name: value for name, value in theirs.items() if name not in own}
        _check_plain(type(net).__name__, added)
        clocks = {"clocks": dict(self.clocks), "updates": self.view.global_step} if self.clocks else {}
        logged = of_ranks(self.logged["train"].state_dict(self.net))
        return {"epoch": self.view.epoch, "added": added, "logged": logged, **clocks}

    def load_state_dict(self, state: dict[str, Any], weights: Mapping[str, Any]) -> None:
        self.view.epoch, self._begun = state.get("epoch"), False
        self.logged["train"].load_state_dict(of_this_rank(state.get("logged", [])), self.net)
        saved = state.get("updates") or 1  # in updates of the checkpoint, which may have another batch
        t = self.view.global_step
        self.clocks = {name: step * t // saved for name, step in state.get("clocks", {}).items()}
        place = {"epoch": self.view.current_epoch, "global_step": self.view.global_step}
        self.call("on_load_checkpoint", {"state_dict": dict(weights), **place, **state.get("added", {})})

    def published(self, stage: str, scores: dict[str, float]) -> dict[str, float]:
        """The same scores; the module then finds them in `self.trainer.callback_metrics`, by its own names."""
        for short, value in scores.items():
            self.view.callback_metrics |= dict.fromkeys(self.logged[stage].all_names(short), torch.tensor(value))
        return scores

    def _log(self, name: str, value: Any, **options: Any) -> None:
        if self._quiet:
            return
        hook, stage = self._hook, self._stage
        for word, other in (("validation", "val"), ("test", "test")):
            stage = other if hook is not None and hook.startswith((f"on_{word}_", f"{word}_step")) else stage
        self.logged[stage].add(hook, name, value, options, self._size)

    def _size(self) -> int:
        """The samples of the batch: the length of its first tensor, as in Lightning."""
        return next((len(tensor) for tensor in tensors(self._batch) if tensor.ndim), 1)

    def _transferred(self, batch: Any) -> Any:
        """The batch after the hooks of its transfer to the device, which it is on already."""
        net: Any = self.net
        if overrides(net, "on_before_batch_transfer"):
            batch = net.on_before_batch_transfer(batch, 0)
        if overrides(net, "transfer_batch_to_device"):
            batch = net.transfer_batch_to_device(batch, self.run.device, 0)
        return net.on_after_batch_transfer(batch, 0) if overrides(net, "on_after_batch_transfer") else batch

    def _optimizers(self) -> Any:
        found = self.view.optimizers
        return found[0] if len(found) == 1 else found

    def _schedulers(self) -> Any:
        """None, as for a module without schedulers; where they are ignored, as many as there are, which do nothing."""
        if "lr_scheduler" not in self.ignore:
            return None
        if self._idle is None:
            count = len(optimizers_of(self.net, self.ignore)[1]) if self.optimizes_by_hand else 1
            rates = lambda: self.run.control.applied  # noqa: E731
            idle = {"step": lambda *metrics: None, "get_last_lr": rates, "state_dict": dict}
            self._idle = [SimpleNamespace(**idle) for _ in range(count)]
        return self._idle[0] if len(self._idle) == 1 else self._idle or None


class LightningScores(Scores):
    """The scores that a module logs; "loss" is the mean of the losses that its step returns, unless it logs one."""

    def __init__(self, task: Task, step: LightningStep, stage: str) -> None:
        if task.metrics:
            raise ConfigError("task.metrics beside task=lightning: the module logs its metrics itself. Leave them out.")
        super().__init__(task)
        self.step, self.stage, self.monitor, self.returned = step, stage, task.monitor, False

    def update(self, output: StepOutput, batch: Any) -> None:
        if output.loss is not None:
            self.returned = True
            super().update(output, batch)

    def compute(self) -> dict[str, float]:
        """The scores by name; resets them. `ConfigError` where the monitored one is missing."""
        scores = super().compute() if self.returned else {}
        self.returned = False
        scores = self.step.published(self.stage, scores | self.step.logged[self.stage].compute())
        if self.stage == "val" and self.monitor not in scores:
            known = ", ".join(scores) or "nothing"
            raise ConfigError(
                f"task.monitor={self.monitor} is not logged by validation_step of {type(self.step.net).__name__}, "
                f"which gives {known}: choose one of these."
            )
        return scores


def _check_plain(kind: str, value: Any, key: str = "") -> None:
    """Refuse what a checkpoint, which is read without running code, cannot hold."""
    if isinstance(value, dict):
        for name, part in value.items():
            _check_plain(kind, part, f"{key}[{name!r}]")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            _check_plain(kind, part, f"{key}[{i}]")
    elif not isinstance(value, _PLAIN):
        raise ConfigError(
            f"on_save_checkpoint of {kind} adds checkpoint{key}, a {type(value).__name__}: add numbers, texts and "
            "tensors, in lists and dicts."
        )
