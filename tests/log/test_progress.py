"""Progress is read for hours: it must show the right numbers, cost nothing, and never harm the run or the terminal."""

import io
import logging
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from rich.console import Console
from torch.utils.data import DataLoader

from trainer.engine.clock import Clock
from trainer.log import progress
from trainer.log.progress import Progress
from trainer.lr import ConfigError, Horizon

MEASURES = {"loss": 0.21314, "lr": 3.2109e-3, "samples_per_second": 48120.4}


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until the test moves `time.now`."""
    time = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "monotonic", lambda: time.now)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return time


def fake_run(t: int = 0, total: int = 1000, rank: int = 0) -> tuple[Any, Any]:
    module = SimpleNamespace(clock=Clock(t), horizon=Horizon(total, 1), recent={})
    batches = {"num_sanity_val_batches": [2], "num_val_batches": [4], "num_test_batches": [3, 5]}
    trainer = SimpleNamespace(is_global_zero=rank == 0, sanity_checking=False, callback_metrics={}, **batches)
    return trainer, module


def shown(terminal: bool, width: int = 80, colors: Any = None) -> tuple[Progress, io.StringIO]:
    callback, out = Progress(), io.StringIO()
    callback.console = Console(file=out, force_terminal=terminal, width=width, color_system=colors)
    return callback, out


def step(callback: Progress, run: tuple[Any, Any], t: int) -> None:
    run[1].clock.t = t
    callback.on_train_batch_end(*run, None, None, 0)


def frames(out: io.StringIO) -> list[str]:
    """The rows drawn so far, without the terminal's control codes."""
    return [row.rstrip() for row in re.split(r"(?:\x1b\[[0-9;?]*[A-Za-z]|[\r\n])+", out.getvalue()) if row.strip()]


def test_a_log_gets_a_line_at_the_start_and_then_one_every_ten_seconds(time):
    callback, out = shown(terminal=False)
    _, module = run = fake_run()
    callback.on_train_start(*run)
    module.recent = MEASURES
    for t in range(1, 45):
        time.now += 0.5
        step(callback, run, 10 * t)
    assert out.getvalue().splitlines() == [
        "update 0/1000 (0 %)",
        "update 200/1000 (20 %)  loss 0.2131  lr 3.21e-03  48120 samples/s  0:00:40 left",
        "update 400/1000 (40 %)  loss 0.2131  lr 3.21e-03  48120 samples/s  0:00:30 left",
    ]


def test_a_log_gets_the_last_update_and_the_metrics_of_each_validation_and_test(time):
    callback, out = shown(terminal=False)
    trainer, module = run = fake_run()
    callback.on_train_start(*run)
    time.now, module.clock.t = 101.0, 500
    trainer.callback_metrics = {"val/loss": torch.tensor(0.25), "val/accuracy": torch.tensor(0.91234), "train/x": 1.0}
    callback.on_validation_start(*run)
    for _ in range(4):
        callback.on_validation_batch_end(*run, None, None, 0)
    callback.on_validation_end(*run)
    time.now, module.clock.t = 102.0, 1000
    callback.on_train_end(*run)
    callback.teardown(*run, "fit")
    trainer.callback_metrics = {"test/loss": torch.tensor(float("nan"))}
    callback.on_test_start(*run)
    callback.on_test_end(*run)
    assert out.getvalue().splitlines()[1:] == [
        "validate at update 500  val/loss 0.2500  val/accuracy 0.9123",
        "update 1000/1000 (100 %)  500 updates/s  0:00:00 left",
        "test 0/8 (0 %)",
        "test at update 1000  test/loss nan",
    ]


def test_a_resumed_run_reckons_its_pace_from_its_own_updates_only(time):
    callback, out = shown(terminal=False)
    run = fake_run(t=900)
    callback.on_train_start(*run)
    time.now += 20
    step(callback, run, 910)
    assert out.getvalue().splitlines() == [
        "update 900/1000 (90 %)",
        "update 910/1000 (91 %)  0.500 updates/s  0:03:00 left",
    ]


def test_the_speed_of_a_narrow_bar_has_its_unit_while_it_counts_updates(time):
    callback, out = shown(terminal=True, width=80)
    run = fake_run()
    callback.on_train_start(*run)
    time.now += 2
    step(callback, run, 10)
    assert "5.00 updates/s" in out.getvalue()


def test_the_bar_shows_everything_at_80_and_at_120_columns(time):
    wanted = {
        80: "440/1000  loss 0.2131  lr 3.21e-03  48.1k/s  01:05 < 01:23",
        120: "440/1000  loss 0.2131  lr 3.21e-03  48120 samples/s  0:01:05  0:01:23 left",
    }
    for width, text in wanted.items():
        callback, out = shown(terminal=True, width=width)
        run = fake_run()
        callback.on_train_start(*run)
        run[1].recent = MEASURES
        time.now += 65
        step(callback, run, 440)
        row = frames(out)[-1]
        assert row.startswith("train     ━")
        assert row.endswith("  " + text)
        assert len(row) == width
        callback.teardown(*run, "fit")


def test_the_bar_keeps_its_width_as_the_numbers_grow(time, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    callback, out = shown(terminal=True, colors="standard")
    run = fake_run()
    callback.on_train_start(*run)
    run[1].recent = MEASURES
    for t in (7, 77, 777):
        time.now += 0.01 * t
        step(callback, run, t)
    callback.teardown(*run, "fit")
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    widths = {len(bar) for bar in re.findall("[━╸╺]+", drawn)[1:]}
    assert len(widths) == 1


def test_the_bar_is_redrawn_at_most_ten_times_a_second(time):
    callback, out = shown(terminal=True)
    run = fake_run(total=100_000)
    callback.on_train_start(*run)
    for t in range(1, 10_001):
        time.now += 0.0001
        step(callback, run, t)
    assert 9 <= len(frames(out)) - 1 <= 10
    callback.teardown(*run, "fit")


def test_a_validation_has_a_row_of_its_own_below_the_training_and_leaves_one_line(time):
    callback, out = shown(terminal=True)
    trainer, module = run = fake_run()
    callback.on_train_start(*run)
    trainer.callback_metrics = {"val/accuracy": torch.tensor(0.91234)}
    callback.on_validation_start(*run)
    for _ in range(2):
        time.now += 1
        callback.on_validation_batch_end(*run, None, None, 0)
    assert [row.split()[0] for row in frames(out)[-2:]] == ["train", "validate"]
    assert frames(out)[-1].endswith("2/4")
    callback.on_validation_end(*run)
    assert [row.split()[0] for row in frames(out)[-3:]] == ["train", "validate", "train"]
    assert frames(out)[-2] == "validate at update 0  val/accuracy 0.9123"
    callback.teardown(*run, "fit")


def test_lightnings_check_before_training_leaves_no_line(time):
    callback, out = shown(terminal=True)
    trainer, module = run = fake_run()
    trainer.sanity_checking, trainer.callback_metrics = True, {"val/loss": torch.tensor(1.0)}
    callback.on_validation_start(*run)
    callback.on_validation_end(*run)
    assert "val/loss" not in out.getvalue()
    assert frames(out)[-1].endswith("0/2")


@pytest.mark.parametrize("total", [float("inf"), 3])
def test_a_validation_of_unknown_length_is_counted_without_an_end(time, total):
    for terminal in (False, True):
        callback, out = shown(terminal)
        trainer, module = run = fake_run()
        trainer.num_val_batches = [total]
        callback.on_validation_start(*run)
        end = "/3" if total == 3 else ""
        assert f"0{end}" in frames(out)[-1].split()
        assert ("%" in out.getvalue()) == (not terminal and total == 3)
        callback.teardown(*run, "validate")


@pytest.mark.parametrize("leave", ["exception", "teardown"])
def test_the_terminal_and_the_log_handlers_are_given_back_when_the_run_ends_or_fails(time, leave, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    handler = logging.StreamHandler()
    monkeypatch.setattr(logging.root, "handlers", [handler])
    callback, out = shown(terminal=True)
    run = fake_run()
    callback.on_train_start(*run)
    logging.getLogger().error("heard above the bar")
    assert "heard above the bar" in frames(out)
    assert out.getvalue().count("\x1b[?25l") == 1
    if leave == "exception":
        callback.on_exception(*run, KeyboardInterrupt())
    callback.teardown(*run, "fit")
    assert out.getvalue().endswith("\n\x1b[?25h")
    assert sys.stderr is handler.stream is screen


class Gone(io.StringIO):
    """A stream that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_that_goes_away_silences_the_display_and_not_the_run(time, terminal, monkeypatch):
    stream = Gone()
    stream.terminal = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    callback, run = Progress(), fake_run()
    callback.on_train_start(*run)
    for t in range(1, 4):
        time.now += 20
        step(callback, run, t)
    callback.on_validation_start(*run)
    callback.on_validation_end(*run)
    callback.on_train_end(*run)
    callback.teardown(*run, "fit")
    assert sys.stderr is stream


@pytest.mark.parametrize("reason", ["no terminal", "dumb", "CI"])
def test_lines_instead_of_a_bar_without_a_terminal_on_a_dumb_one_and_in_ci(time, reason, monkeypatch):
    if reason == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    if reason == "CI":
        monkeypatch.setenv("CI", "true")
    callback, out = shown(terminal=reason != "no terminal")
    callback.on_train_start(*fake_run())
    assert out.getvalue() == "update 0/1000 (0 %)\n"


def test_a_rank_above_zero_shows_nothing(time):
    callback, out = shown(terminal=True)
    trainer, module = run = fake_run(rank=1)
    callback.on_train_start(*run)
    time.now += 20
    step(callback, run, 1)
    for stage in ("validation", "test"):
        getattr(callback, f"on_{stage}_start")(*run)
        getattr(callback, f"on_{stage}_batch_end")(*run, None, None, 0)
        getattr(callback, f"on_{stage}_end")(*run)
    callback.on_train_end(*run)
    callback.teardown(*run, "fit")
    assert out.getvalue() == ""


@pytest.mark.parametrize("name", ["refresh_per_second", "lines_every"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_a_pace_that_is_not_above_zero_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        Progress(**{name: value})


class Counter(LightningModule):
    """The least that a module must be for progress to be shown."""

    def __init__(self, total: int, fails_at: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.clock, self.horizon, self.recent = Clock(), Horizon(total, 1), {}
        self.fails_at = fails_at

    def training_step(self, batch: torch.Tensor, index: int) -> None:
        self.clock.t += 1
        self.recent |= {"loss": 1 / self.clock.t, "lr": 0.1}
        if self.clock.t == self.fails_at:
            raise RuntimeError("planned")

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("val/loss", batch.mean())

    def test_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("test/loss", batch.mean())

    def configure_optimizers(self) -> None:
        return None


def trainer_with(callback: Progress, epochs: int = 2) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[callback], **quiet)


def test_a_real_fit_and_test_are_shown_as_lines():
    callback, out = shown(terminal=False)
    trainer, module = trainer_with(callback), Counter(total=6)
    data = DataLoader(torch.ones(3, 1))
    trainer.fit(module, data, data)
    trainer.test(module, data, verbose=False)
    lines = [re.sub(r"\S+ updates/s", "S updates/s", line) for line in out.getvalue().splitlines()]
    assert lines == [
        "check 0/2 (0 %)",
        "update 0/6 (0 %)",
        "validate at update 3  val/loss 1.000",
        "validate at update 6  val/loss 1.000",
        "update 6/6 (100 %)  loss 0.1667  lr 1.00e-01  S updates/s  0:00:00 left",
        "test 0/3 (0 %)",
        "test at update 6  test/loss 1.000",
    ]


@pytest.mark.parametrize("fails_at", [None, 4])
def test_a_real_fit_on_a_terminal_ends_with_the_last_state_and_a_visible_cursor(fails_at, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    callback, out = shown(terminal=True)
    data, before = DataLoader(torch.ones(3, 1)), (sys.stdout, sys.stderr)
    trainer, module = trainer_with(callback), Counter(total=6, fails_at=fails_at)
    if fails_at:
        with pytest.raises(RuntimeError, match="planned"):
            trainer.fit(module, data, data)
    else:
        trainer.fit(module, data, data)
        assert " 6/6 " in frames(out)[-1]
    assert out.getvalue().rstrip("\n").endswith("\x1b[?25h")
    assert (sys.stdout, sys.stderr) == before
