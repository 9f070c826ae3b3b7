"""Loggers that fail fall silent with one warning, and the run trains on to the same bits."""

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger, Logger

from trainer.log.failsafe import FailsafeWriter, failsafe
from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError
from trainer.run import evaluate, fit

SMALL = (
    *("data=synthetic", "data.samples=128", "data.val_samples=32", "data.test_samples=48", "data.batch_size=16"),
    *("model.hidden=[8]", "trainer.duration=16", "trainer.validate=8", "trainer.log_every=4"),
)


class Fails(DummyLogger):
    """Fails at the call of this name, as one whose server cannot be reached."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def _call(self, name: str) -> None:
        self.calls += 1
        if name == self.at:
            raise ConnectionError("the server does not answer")

    @property
    def experiment(self):
        self._call("experiment")

    def log_metrics(self, metrics, step=None):
        self._call("log_metrics")

    def save(self):
        self._call("save")

    def finalize(self, status):
        self._call("finalize")


@pytest.mark.parametrize("at", ["experiment", "log_metrics", "save", "finalize"])
def test_a_logger_that_fails_ends_no_run(assembled, capsys, at):
    whole, run = assembled(*SMALL, folder="whole"), assembled(*SMALL)
    run.trainer.loggers = [logger := failsafe(Fails(at)), *run.trainer.loggers]
    for one in (whole, run):
        fit(one)
        evaluate(one)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert told == ["warning: Fails cannot log: the server does not answer. The run goes on without it."]
    assert isinstance(logger, Fails)
    weights = [dict(one.module.state_dict()) for one in (whole, run)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_log_that_is_removed_is_told(tmp_path, capsys):
    for end in ("save", "close"):
        logger = failsafe(TensorBoard(str(tmp_path / end)))
        logger.log_metrics({"a": 1.0}, 0)
        for path in tmp_path.rglob("events.out.tfevents.*"):
            path.unlink()
        getattr(logger, end)()
        logger.log_metrics({"a": 1.0}, 1)
        (told,) = capsys.readouterr().err.splitlines()
        assert told.startswith("warning: TensorBoard cannot log: [Errno 2] the log was removed")
        assert not list(tmp_path.rglob("events.out.tfevents.*"))


def test_mistakes_and_bugs_are_not_silenced(tmp_path):
    class Refuses(DummyLogger):
        def log_metrics(self, metrics, step=None):
            raise ConfigError("no such project")

    with pytest.raises(ConfigError):
        failsafe(Refuses()).log_metrics({}, 0)
    with pytest.raises(ValueError, match="has no step"):
        failsafe(TensorBoard(str(tmp_path))).log_metrics({"a": 1.0})


def test_a_writer_of_the_users_that_fails_falls_silent(capsys):
    class Full:
        tags = ("a",)

        def add_scalar(self, *given):
            raise OSError(28, "No space left on device")

    writer = FailsafeWriter(Full())
    assert writer.tags == ("a",)
    assert [writer.add_scalar("a", 1.0) for _ in range(2)] == [None, None]
    assert capsys.readouterr().err.count("Full cannot log") == 1


def test_every_writing_method_of_a_logger_is_failsafe():
    left_out = {"group_separator", "name", "version", "root_dir", "log_dir", "save_dir", "experiment"}
    public = {name for kind in (Logger, TensorBoard) for name in vars(kind) if not name.startswith("_")}
    from trainer.log.failsafe import WRITES

    assert public - left_out <= {*WRITES, "abandon"}
