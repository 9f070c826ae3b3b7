"""The run of a job that differs in numbers from another is the one that composing its config gives."""

import pytest

from trainer.config.before_torch import checked
from trainer.config.settings import settings_of
from trainer.run import Start
from trainer.sweep.worker import Order
from trainer.tools.worker.collect import _derived, _numbers

PROGRAM = ["-m", "cadence.train"]
COMMON = ["name=s", "optimizer=momentum", "schedule=cosine_warmup", "trainer.accelerator=cpu"]


@pytest.fixture
def asked(compose, tmp_path):
    """A job with these overrides, and the run that it asks for."""

    def make(number, *words):
        folder = tmp_path / str(number)
        overrides = [*COMMON, *words]
        start = Start(folder, checked(settings_of(compose(*overrides))), overrides, ["cadence", "train"])
        words = [*PROGRAM, *overrides, "hydra.mode=RUN", f"hydra.run.dir='{folder}'"]
        return Order(number, words, {}, str(folder / "job.log"), False), start

    return make


def test_a_derived_run_is_the_composed_one(asked) -> None:
    first = asked(0, "optimizer.lr=0.1", "seed=1", "optimizer.weight_decay=0", "warmup.duration=5")
    order, composed = asked(1, "optimizer.lr=3e-3", "seed=22", "optimizer.weight_decay=0.01", "warmup.duration=70")
    numbers = _numbers(order, first)
    assert numbers is not None
    derived = _derived(order, first[1], numbers)
    assert derived.settings == composed.settings
    assert derived.settings.source == composed.settings.source
    assert derived.settings.record == composed.settings.record
    assert (derived.folder, derived.overrides) == (composed.folder, composed.overrides)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("model.hidden=[32]",), ("model.hidden=[64]",)),
        (("seed=1",), ("seed=007",)),
        (("optimizer.lr=0.1", "schedule=constant"), ("optimizer.lr=0.1", "schedule=wsd")),
    ],
)
def test_what_may_differ_in_more_is_composed(asked, one, other) -> None:
    order, first = asked(1, *one)[0], asked(0, *one)
    assert _numbers(order, first) == {}
    words = [word for word in order.words if word not in one]
    assert _numbers(order._replace(words=[*words[:2], *other, *words[2:]]), first) is None


def test_the_program_of_a_user_composes_each_config(asked) -> None:
    order, start = asked(0, "seed=1")
    own = order._replace(words=["own.py", *order.words[2:]])
    assert _numbers(own, (own, start)) is None
