"""The one LightningModule: it hands every update to the Updater, and scores validation and test data."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.engine.averaging import Averaging, recent
from trainer.engine.clock import Clock
from trainer.engine.cuda_graph import GraphUpdater
from trainer.engine.failed_batch import OF_BATCHES, explained_nan, explained_update
from trainer.engine.frozen import check_saved
from trainer.engine.guard import Diverged, Guard, check_finite, where_nonfinite
from trainer.engine.lr_control import LRControl, attribute_setters
from trainer.engine.manual_update import ManualUpdater
from trainer.engine.metrics import Numbers
from trainer.engine.rehearsal import check_step, rehearse
from trainer.engine.run_hooks import RunHooks
from trainer.engine.step import StepOutput, check_output
from trainer.engine.task import Scores, Task
from trainer.engine.train_spec import TrainSpec
from trainer.engine.update import Backward, Updater
from trainer.engine.watched_metric import tell_event
from trainer.log.metric_buffer import MetricBuffer, changing_factors, log_updates
from trainer.log.pictures import matrix_picture
from trainer.log.tensorboard import TensorBoard
from trainer.lr.backoff import rollbacks
from trainer.optim.composite import keep_configured


class Module(pl.LightningModule):
    """Trains `net` on `task` as `spec` says; one call of `training_step` makes a chunk of updates.

    Its state is the weights, their average, the optimizer, the clock and the observers. `monitors` are the callbacks
    that watch a score, and its tag. `arrays` are the matrices and curves of the last validation and test by tag.
    In a fit `before_validation` is called before all hooks of a validation, and `after_validation` after those of the
    callbacks and the net, while the weights that were scored are in the net.
    """

    updater: Updater
    checked = False
    """Whether the step has checked the net on a batch."""

    def __init__(self, net: nn.Module, task: Task, spec: TrainSpec, scores: nn.ModuleDict | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task, self.monitors = task, dict[str, str]()
        self.net, self.spec, self.horizon = net, spec, spec.horizon
        self.step, self.clock, self.metric_buffer = task.make_step(), Clock(), MetricBuffer()
        self.hooks = self.step if isinstance(self.step, RunHooks) else RunHooks()
        self.scores = scores or nn.ModuleDict({stage: self.hooks.scores(task, stage) for stage in ("val", "test")})
        self.control = LRControl(spec.policy, attribute_setters(spec.policy, net, self.step))
        self.guard = Guard(spec.guard, self.clock)
        self.control.rollbacks = rollbacks(spec.origin.get("curve_history", ()), self.horizon.batch_size)
        self.metric_buffer.charted = changing_factors(spec.policy, spec.horizon.total)
        self.averaging, self.observers = Averaging(net, spec.average), spec.observers(self.clock, self.control)
        self.recent: dict[str, float] = {}
        self.arrays: dict[str, Numbers] = {}
        self.before_validation: Callable[[], None] = _nothing
        self.after_validation: Callable[[], None] = _nothing
        self.hooks.connect(self)

    @property
    def over(self) -> bool:
        """Whether the run has made all of its updates."""
        return self.clock.at >= self.horizon.total

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def run_step(self, batch: Any) -> StepOutput:
        """What the step gives for a batch, at the present update."""
        return check_output(self.step(self.net, batch, t=self.clock.t))

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.spec.optimizer()
        scheduled = self.spec.policy.hyper_schedules.keys() - self.control.setters.keys()
        optimizer.register_load_state_dict_pre_hook(partial(keep_configured, scheduled=scheduled))
        return optimizer

    def prepare_data(self) -> None:
        self.hooks.call("prepare_data")

    def setup(self, stage: str) -> None:
        self.hooks.call("setup", stage)

    def teardown(self, stage: str) -> None:
        self.hooks.call("teardown", stage)

    def on_fit_start(self) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, Optimizer)
        if not self.hooks.optimizes_by_hand:
            self.control.attach(optimizer)
        self.observers.begin(self.net, self.step, optimizer, self.trainer.strategy.model)
        self.updater = self.make_updater(optimizer, Backward.of(self.trainer, self.device))
        self.guard.begin(self.net)
        self._tell_lightning()
        self.hooks.call("on_fit_start")

    def make_updater(self, optimizer: Optimizer, backward: Backward) -> Updater:
        """What makes the updates of this run; the observers have begun."""
        kind = ManualUpdater if self.hooks.optimizes_by_hand else GraphUpdater if self.spec.cuda_graph else Updater
        return kind(
            net=self.net,
            step=self.step,
            optimizer=optimizer,
            control=self.control,
            clock=self.clock,
            metric_buffer=self.metric_buffer,
            backward=backward,
            treatment=replace(self.spec.gradients, limits=tuple(group.clip for group in self.spec.groups)),
            averaging=self.averaging,
            observer=self.observers.observer,
            micro_gradients=self.observers.micro_gradients,
            hooks=self.hooks,
            guard=self.guard,
        )

    def on_train_start(self) -> None:
        self.averaging.begin(self.updater.optimizer)
        rehearse(self.trainer, self)
        self.checked = False
        self.hooks.call("on_train_start")
        self.metric_buffer.since = time.time()

    def training_step(self, chunk: Iterable[Sequence[Any]], batch_idx: int) -> None:
        convert = self.trainer.precision_plugin.convert_input  # Lightning has converted lists, but not what is cut late
        for update in takewhile(lambda _: not self.over, map(convert, chunk)):
            self.spec.check_batch(self.clock.t, update)
            self.hooks.begin_update()
            if not self._apply_update(update):
                self._leave_out()
                break
            if len(self.metric_buffer) >= self.spec.log_every:
                self._tell_lightning()
                self.flush()
        self._tell_lightning()
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = max(self.clock.t - 1, 0)  # Lightning adds 1

    def _apply_update(self, update: Sequence[Any]) -> bool:
        """Whether the update was applied; False where the guard leaves it out."""
        if not self.checked:
            check_step(self, update[0].batch)
            self.checked = True
        try:
            return self.updater(update)
        except Diverged as failure:
            raise explained_nan(failure, self, update) from None
        except OF_BATCHES as error:
            found = explained_update(error, self, update)
            raise found from (None if found is error else error)

    def first_failure(self, failure: Diverged) -> Diverged:
        """The first failure among the updates that were not flushed before this one; all ranks call it together."""
        if len(self.metric_buffer):
            columns = self.metric_buffer.columns(self.spec.policy, self._over_ranks)
            try:
                for row in zip(self.metric_buffer.updates, columns["train/grad_norm"], columns["train/loss"]):
                    check_finite(*row)
                    self.guard.check_spike(*row)
            except Diverged as earlier:
                return earlier
        return failure

    def _leave_out(self) -> None:
        """Leave out the batch of the present update, and have Lightning ask the data anew, from the clock on."""
        t, data = self.clock.t, self.trainer.datamodule  # type: ignore[attr-defined]
        inputs, event = where_nonfinite(data, t), self.guard.leave_out(t, data.positions(t))
        self.log_event(t, f"{event}.{inputs}", "left_out", len(self.clock.left_out))
        fetcher = self.trainer.fit_loop._data_fetcher
        assert fetcher is not None
        iter(fetcher)
        self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = fetcher.done

    def log_event(self, t: int, event: str, name: str, count: int) -> None:
        """Tell what the guard did before update `t`: on stderr, in TensorBoard's texts, as guard/`name` in other logs.

        It is logged at the last update before `t`, which a run resumed at `t` keeps.
        """
        for logger in self.trainer.loggers:
            if not isinstance(logger, TensorBoard):
                logger.log_metrics({f"guard/{name}": count}, max(t - 1, 0))
        tell_event(self.trainer, event, t)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.trainer.should_stop |= self.over

    def flush(self, alone: bool = False) -> None:
        """Log every update since the last flush: the applied rates, their factors, the loss.

        `alone`: with the losses of this process only, after a failure, when the others may be gone.
        """
        if not len(self.metric_buffer):
            return
        updates, times = self.metric_buffer.updates, self.metric_buffer.times
        columns = self.metric_buffer.columns(self.spec.policy, (lambda own: own) if alone else self._over_ranks)
        losses, speed = columns["train/loss"], self.metric_buffer.speed() * self.spec.mean_batch(updates)
        self.metric_buffer.clear()
        rate = columns[f"lr/{self.control.names[0]}"][-1]
        self.recent |= {"loss": losses[-1], "lr": rate, "samples_per_second": speed}
        log_updates(self.trainer.loggers, updates, times, columns, speed)
        if not alone:
            for row in zip(updates, columns["train/grad_norm"], losses):
                check_finite(*row)
                self.guard.check_spike(*row)

    def on_train_epoch_start(self) -> None:
        self.metric_buffer.since = time.time()

    def on_train_epoch_end(self) -> None:
        self.flush()
        self.hooks.end_epoch()

    def on_train_end(self) -> None:
        self.hooks.call("on_train_end")
        self._swap_in()

    def on_fit_end(self) -> None:
        self.hooks.call("on_fit_end")

    def on_validation_model_eval(self) -> None:
        if self.trainer.state.fn == "fit":
            self.trainer.should_stop |= self.over  # a run that was resumed for this validation does not know it yet
            self.before_validation()
        super().on_validation_model_eval()
        self.hooks.call("on_validation_model_eval")

    def on_test_model_eval(self) -> None:
        super().on_test_model_eval()
        self.hooks.call("on_test_model_eval")

    def on_validation_epoch_start(self) -> None:
        if self.trainer.state.fn == "fit":
            self.flush()
            self._swap_in()
        self._prepare_scoring("validation")

    def on_test_epoch_start(self) -> None:
        self._prepare_scoring("test")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._score("val", batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._score("test", batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self.hooks.call("on_validation_epoch_end")
        self._publish("val")

    def on_validation_end(self) -> None:
        self.hooks.call("on_validation_end")
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.after_validation()
        self.averaging.swap_out()

    def on_test_epoch_end(self) -> None:
        self.hooks.call("on_test_epoch_end")
        self._publish("test")

    def on_test_end(self) -> None:
        self.hooks.call("on_test_end")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are on the device already."""
        return batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the clock and our state; drop Lightning's loop counters, which follow from the clock."""
        del checkpoint["loops"]
        batch = {"batch_size": self.horizon.batch_size, "updates_per_epoch": self.horizon.updates_per_epoch}
        checkpoint["cadence"] = {"updates": self.clock.t, "tau": self.clock.tau, **batch, **self.spec.origin}
        checkpoint |= {"averaging": self.averaging.state_dict(), "observers": self.observers.state_dict()}
        if self.clock.left_out:
            checkpoint["cadence"]["left_out"] = list(self.clock.left_out)
        if state := self.guard.state_dict():
            checkpoint["guard"] = state
        if state := self.hooks.state_dict(self.net):
            checkpoint["hooks"] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["cadence"]
        self.clock.t = saved["updates"] * saved["batch_size"] // self.horizon.batch_size
        self.clock.left_out[:] = saved.get("left_out", [])
        self.guard.load_state_dict(checkpoint.get("guard", {}))
        self.averaging.load_state_dict(checkpoint["averaging"])
        self.observers.load_state_dict(checkpoint.get("observers", {}))
        if isinstance(self.step, nn.Module):
            check_saved(self.step, checkpoint["state_dict"])
        weights = checkpoint["state_dict"].items()
        self.hooks.load_state_dict(
            checkpoint.get("hooks", {}), {name[4:]: w for name, w in weights if name[:4] == "net."}
        )

    def _swap_in(self) -> None:
        """Put the averaged weights into the net, if there are any."""
        count, precision = self.spec.average.recalibrate, self.trainer.precision_plugin
        batches = recent(self.trainer.train_dataloader, self.clock, count, self.spec.micro_batches)
        with precision.forward_context():
            self.averaging.swap_in(map(precision.convert_input, batches), self.run_step)

    def _prepare_scoring(self, stage: str) -> None:
        """Score with the configured settings, and with rank 0's running statistics, which the checkpoint holds.

        Draws of the net and the step are the same in each pass, as are those of the data.
        """
        self.control.reset()
        Backward(self.device).reseed(0)
        if self.trainer.world_size > 1:
            for buffer in self.net.buffers():
                torch.distributed.broadcast(buffer, src=0)
        self.hooks.call(f"on_{stage}_start")
        self.hooks.call(f"on_{stage}_epoch_start")

    def _score(self, stage: str, batch: Any, batch_idx: int) -> None:
        scores = self.scores[stage]
        assert isinstance(scores, Scores)
        scores.update(self.hooks.score(stage, batch, batch_idx, self.run_step), batch)

    def _publish(self, stage: str) -> None:
        """Hand the scores of a pass to callbacks and loggers, at the last update before it."""
        scores = self.scores[stage]
        assert isinstance(scores, Scores)
        values = {f"{stage}/{name}": value for name, value in scores.compute().items()}
        arrays = {f"{stage}/{name}": numbers for name, numbers in scores.arrays.items()}
        self.arrays = {name: one for name, one in self.arrays.items() if not name.startswith(f"{stage}/")} | arrays
        dtype = scores.dtype
        self.log_dict(
            {name: torch.tensor(value, dtype=dtype, device=self.device) for name, value in values.items()}, logger=False
        )
        for logger in self.trainer.loggers:
            logger.log_metrics(values, max(self.clock.t - 1, 0))
            if isinstance(logger, TensorBoard):
                for name, numbers in arrays.items():
                    if picture := matrix_picture(numbers):
                        logger.log_image(name, picture, max(self.clock.t - 1, 0))

    def _over_ranks(self, measures: Tensor) -> Tensor:
        """The means over the processes, in one call: Lightning's `reduce` makes a barrier beside it."""
        if self.trainer.world_size == 1:
            return measures
        torch.distributed.all_reduce(measures)
        return measures / self.trainer.world_size

    def _tell_lightning(self) -> None:
        """Set Lightning's `global_step`, which callbacks and loggers read, to the clock."""
        loop = self.trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = loop.manual_optimization.optim_step_progress.total.completed = self.clock.t


def _nothing() -> None:
    """What a callback may replace."""
