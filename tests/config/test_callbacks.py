"""Which callbacks of Lightning a run can have: those that only watch; the others are refused, with ours named."""

import importlib
import importlib.util
import re
from copy import deepcopy

import pytest
import pytorch_lightning.callbacks as lightning
import torch
from pytorch_lightning import Callback
from torch.utils._pytree import tree_leaves

from tests.pages import section
from trainer.checkpoint.io import checkpoints_in, read
from trainer.config.callbacks import NEVER_CALLED, REPLACED, check_hooks, check_kind
from trainer.log.scalars import scalars
from trainer.lr import ConfigError
from trainer.run import fit

WATCHING = {"Callback", "DeviceStatsMonitor", "LambdaCallback", "ModelSummary", "RichModelSummary"}
RUN = ("data.batch_size=32", "model.hidden=[8]", "trainer.duration=12", "trainer.validate=6")
SHOWING = ("DeviceStatsMonitor", "ModelSummary", "RichModelSummary")
HOMES = [name for name in ("pytorch_lightning", "lightning.pytorch") if importlib.util.find_spec(name.split(".")[0])]


class Averaging(lightning.EMAWeightAveraging):
    """Built on a callback that is refused."""


class Counting(Callback):
    """A user's own, which changes nothing but may."""

    calls = 0

    def on_train_batch_end(self, *_):
        self.calls += 1


class Blanking(Callback):
    """Changes the inputs of a chunk before it is trained on; looks at the chunk as at any list of tensors."""

    def on_train_batch_start(self, trainer, module, batch, _):
        for inputs, _ in (micro.batch for update in batch[:] for micro in update):
            inputs.zero_()
        found = [leaf for leaf in tree_leaves(deepcopy(batch)) if torch.is_tensor(leaf)]
        assert len(found) == 2 * len(batch)
        assert found[0].dtype == torch.float64


class Inside(Callback):
    def on_before_optimizer_step(self, *_):
        """It would never be called."""


def watching(name):
    return f"+callbacks.x{SHOWING.index(name)}._target_=pytorch_lightning.callbacks.{name}"


def callback(target, *words):
    return (*RUN, f"+callbacks.mine._target_={target}", *words)


@pytest.mark.parametrize("home", HOMES)
def test_each_callback_of_lightning_watches_only_or_is_refused(home):
    callbacks = importlib.import_module(f"{home}.callbacks")
    for name in callbacks.__all__:
        kind = getattr(callbacks, name)
        if name in WATCHING:
            check_kind("callbacks.x", kind)
            assert not [hook for hook in NEVER_CALLED if name != "Callback" and hook in vars(kind)]
        else:
            with pytest.raises(ConfigError, match=f"callbacks.x: {name}.* cannot be a callback here: .*: ") as refusal:
                check_kind("callbacks.x", kind)
            assert "\n" not in str(refusal.value)
    built_on = {base.__name__ for name in callbacks.__all__ for base in getattr(callbacks, name).__mro__}
    assert set(REPLACED) <= built_on


def test_the_page_lists_each_callback_of_lightning():
    told = set(re.findall(r"`(\w+)`", section("callbacks.md", "Lightning's callbacks")))
    assert set(lightning.__all__) - {"Callback"} <= told


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("pytorch_lightning.callbacks.EMAWeightAveraging", "EMAWeightAveraging, a WeightAveraging.*average=ema"),
        ("tests.config.test_callbacks.Averaging", "Averaging, a WeightAveraging, cannot be a callback"),
        ("pytorch_lightning.callbacks.BatchSizeFinder", "set data.batch_size"),
        ("pytorch_lightning.callbacks.GradientAccumulationScheduler", "trainer.accumulate or batch_schedule=grow"),
        ("tests.config.test_callbacks.Inside", "on_before_optimizer_step of Inside would never be called"),
        ("lightning.pytorch.callbacks.ModelSummary", "take pytorch_lightning.callbacks.ModelSummary"),
    ],
)
def test_one_that_changes_the_training_is_refused_by_its_name(assembled, target, told):
    if importlib.util.find_spec(target.split(".")[0]) is None:
        pytest.skip("lightning is not installed")
    with pytest.raises(ConfigError, match=told):
        assembled(*callback(target, "allow=[tests,lightning]"))


def test_a_hook_that_is_given_to_a_lambda_callback_is_judged_too():
    check_hooks("callbacks.x", lightning.LambdaCallback(on_train_batch_end=print))
    with pytest.raises(ConfigError, match="on_after_backward of LambdaCallback would never be called"):
        check_hooks("callbacks.x", lightning.LambdaCallback(on_after_backward=print))


def test_those_that_watch_change_no_bit_and_show_what_they_see(assembled, capsys):
    plain, run = (
        assembled(*RUN, folder="plain"),
        assembled(*RUN, *map(watching, SHOWING), "+callbacks.x0.cpu_stats=true"),
    )
    for one in (plain, run):
        fit(one)
    states = [read(checkpoints_in(one.checkpointing.folder)[-1])["state_dict"] for one in (plain, run)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    run.trainer.logger.save()
    seen = {tag.partition("/")[0]: steps for tag, steps in scalars(run.folder).items() if "cpu_percent" in tag}
    hooks = "DeviceStatsMonitor.on_train_batch_start", "DeviceStatsMonitor.on_train_batch_end"
    assert [[step for step, _ in seen[hook]] for hook in hooks] == [[0, 6], [5, 11]]
    assert "Params" in capsys.readouterr().out


def test_a_users_own_callback_is_called_after_each_chunk(assembled):
    words = callback("tests.config.test_callbacks.Counting", "allow=[tests]", "trainer.steps_per_execution=4")
    run = assembled(*words)
    fit(run)
    assert run.trainer.callbacks[0].calls == 4  # of 4, 2, 4 and 2 updates


def test_what_a_users_callback_makes_of_a_chunk_is_trained_on(assembled):
    words = (
        "data=synthetic",
        "optimizer=sgd",
        "optimizer.weight_decay=0",
        "trainer.precision=64-true",
        "allow=[tests]",
    )
    run = assembled(*callback("tests.config.test_callbacks.Blanking", *words))
    first, last = ([*run.module.net.parameters()][i] for i in (0, -1))
    before = [one.detach().clone() for one in (first, last)]
    fit(run)
    assert torch.equal(first, before[0].to(first))  # inputs of zero give no gradient
    assert not torch.equal(last, before[1].to(last))


@pytest.mark.parametrize(
    ("words", "chunk"),
    [
        (RUN, (10, 200)),
        ((*RUN, "trainer.steps_per_execution=10"), (10, None)),
        ((*RUN, "trainer.devices=2"), (10, None)),
        ((*RUN, "schedule=multi_step", "batch_schedule=grow", "batch_schedule.max_batch_size=64"), (10, None)),
        ((*RUN, "+callbacks.x._target_=pytorch_lightning.callbacks.ModelSummary"), (10, 200)),
        (callback("tests.config.test_callbacks.Counting", "allow=[tests]"), (10, None)),
    ],
)
def test_chunks_grow_where_one_process_trains_and_no_callback_of_the_user_sees_them(assembled, words, chunk):
    loop = assembled(*words).data._loop
    assert (loop.steps_per_execution, loop.longest) == chunk
