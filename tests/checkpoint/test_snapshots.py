"""A run that branches off a longer one ends with the bits, the scores and the log of the run that is trained alone."""

import json

import pytest
import torch

from trainer.checkpoint.io import BEST, checkpoints_in, read
from trainer.checkpoint.snapshots import snapshot_path
from trainer.config.run_summary import summary_of_run
from trainer.config.settings import settings_of
from trainer.log.validations import read_validations
from trainer.lr import ConfigError
from trainer.run import assemble, evaluate, fit
from trainer.sweep.first_difference import Planned, shared_updates

SMALL = (
    *("data.batch_size=64", "model.hidden=[16]", "model.dropout=0.3", "trainer.accumulate=2", "trainer.validate=5"),
    *("trainer.steps_per_execution=4", "schedule=wsd", "warmup=linear", "warmup.duration=4", "trainer.log_every=4"),
)
"""An epoch is 11 updates of 128 samples."""
KINDS = {
    "adamw with an average": ("optimizer=adamw", "average=ema", "average.decay=0.9", "schedule.shape=linear"),
    "momentum on a plateau": ("optimizer=momentum", "plateau=count", "plateau.patience=0", "plateau.factor=0.5"),
    "two curves and a tied weight decay": (
        "optimizer=adamw",
        "hyper_schedule=weight_decay_tied",
        "schedule=constant",
        "cooldown=linear",
    ),
    "a best before the branch": ("optimizer=adamw", "optimizer.lr=0.3", "measure=noise"),
}
LONG, SHORT = 40, {"adamw with an average": (15, 27)}
"""Updates of the long run, and of the runs that branch off it: 27 where nothing is said."""


@pytest.fixture
def trained(compose, tmp_path):
    """A run at its end, branched off `long` if it is given, and its scores on the test data."""

    def make(words, updates, folder, *more, long=None):
        off = [f"resume.snapshot={long}"] if long else []
        assembly = assemble(
            compose(*SMALL, *words, f"trainer.duration={updates}", *more, *off), tmp_path / folder, long
        )
        fit(assembly)
        scores = evaluate(assembly)
        assembly.trainer.logger.close()
        return assembly, scores

    return make


@pytest.fixture
def shared(compose):
    """The updates that the planned curves of a long run and a shorter one share, from the first on; or why none."""

    def find(words, updates):
        return shared_updates(
            *(Planned(None, settings_of(compose(*SMALL, *words, f"trainer.duration={n}"))) for n in (LONG, updates))
        )

    return find


def ending(assembly):
    """Everything that the last checkpoint keeps, by its path: weights, optimizer, averages, what callbacks remember."""
    checkpoint = read(checkpoints_in(assembly.folder / "checkpoints")[-1])
    return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "averaging", "observers", "callbacks")}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def logged(folder):
    """Every scalar of a log but the times: update and value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "second" not in tag]
    assert "lr/decay" in tags or "lr/all" in tags
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags}


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", KINDS)
def test_a_branch_is_to_the_bit_the_run_that_is_trained_alone(trained, shared, kind):
    words = KINDS[kind]
    begins = {updates: shared(words, updates)[0] for updates in SHORT.get(kind, (27,))}
    at = f"trainer.snapshots=[{','.join(map(str, begins.values()))}]"
    long, _ = trained(words, LONG, "long", at)
    for updates, begin in begins.items():
        lone, expected = trained(words, updates, f"lone-{updates}")
        path = snapshot_path(long.folder / "checkpoints", begin)
        branch, scores = trained(words, updates, f"branch-{updates}", long=path)
        assert 4 < begin < updates
        assert same(ending(branch), ending(lone))
        assert scores == expected
        assert branch.checkpointing.best == lone.checkpointing.best
        files = [run.folder / "checkpoints" / BEST for run in (branch, lone)]
        assert same(*(read(path)["state_dict"] for path in files))
        assert read_validations(branch.folder) == read_validations(lone.folder)
        assert logged(branch.folder) == logged(lone.folder)
        assert summary_of_run(branch.resolved)["changes"] == [{"policy": "branch", "update": begin, "of": str(path)}]
        for name in ("curves", "peak_lr", "last_lr", "total_updates"):
            assert summary_of_run(branch.resolved)[name] == summary_of_run(lone.resolved)[name]
        assert not same(ending(branch), ending(long))
        if kind == "a best before the branch":
            assert branch.checkpointing.best["update"] < begin < long.checkpointing.best["update"]


def test_two_lengths_share_what_their_curves_share_and_not_one_update_more(shared, assembled):
    words = ("optimizer=adamw", "schedule.decay=20%")
    begin, why = shared(words, 20)
    assert (begin, why) == (17, "")  # the last 4 of 20 cool down, and the first of them is still at the peak
    one, two = (assembled(*SMALL, *words, f"trainer.duration={n}").module.spec.policy for n in (LONG, 20))
    assert [one.lrs(t) for t in range(begin)] == [two.lrs(t) for t in range(begin)]
    assert one.lrs(begin) != two.lrs(begin)
    constant = ("optimizer=adamw", "schedule=constant")
    assert shared(constant, 20) == (19, "")
    assert shared((*constant, "hyper_schedule=weight_decay_cosine"), 20)[0] == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("warmup.duration=10%",), "warmup.duration=10% depends on the length: give it in updates"),
        (
            ("schedule=cosine", "warmup.duration=0"),
            "their curves differ from update 1 on: take one whose start does not depend",
        ),
        (("trainer.validate=10%",), "trainer.validate=10% is a share of the length: give it in updates"),
        (("average=swa", "schedule.floor=0.5"), "average.start=75% is a share of the length: give it in updates"),
        (("trainer.validate=${trainer.duration}",), "trainer.validate follows trainer.duration (40, 20): give one"),
        (("scaling=adascale", "scaling.base_batch_size=64"), "scaling=adascale counts updates by their gain"),
    ],
)
def test_runs_that_differ_from_the_start_share_nothing_and_say_why(shared, words, why):
    begin, said = shared(words, 20)
    assert begin == 0
    assert said.startswith(why)


def test_a_checkpoint_after_the_curves_part_is_refused(trained):
    words = ("optimizer=adamw", "schedule.decay=20%")
    long, _ = trained(words, LONG, "long", "trainer.snapshots=[18]")
    path = snapshot_path(long.folder / "checkpoints", 18)
    with pytest.raises(ConfigError, match="the curves differ at update 17, and the checkpoint is after update 18"):
        trained(words, 20, "branch", long=path)
    with pytest.raises(ConfigError, match="global batch 128 → 64"):
        trained(words, 20, "smaller", "trainer.accumulate=1", long=path)
    with pytest.raises(ConfigError, match="no update left"):
        trained(words, 18, "shorter", long=path)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("trainer.snapshots=[40]",), "trainer.snapshots=40 is not before the end of the run of 40 updates"),
        (("trainer.snapshots=[0]",), "trainer.snapshots=0 is 0 updates"),
        (("trainer.snapshots=8",), "trainer.snapshots=8 is not a list"),
        (("trainer.snapshots=[1.5]",), "not a whole number of updates"),
        (("resume.snapshot=here", "resume.policy=stretch"), "is followed by resume.policy=branch, not by stretch"),
    ],
)
def test_what_cannot_be_a_branch_is_refused(assembled, words, why):
    with pytest.raises(ConfigError, match=why):
        assembled(*SMALL, "trainer.duration=40", *words)


def test_keeping_branches_changes_no_bit_and_a_long_run_that_goes_on_keeps_the_same(trained, assembled):
    words, at = KINDS["adamw with an average"], "trainer.snapshots=[13,25]"
    plain, expected = trained(words, LONG, "plain")
    whole, scores = trained(words, LONG, "whole", at, "trainer.checkpoint=9", "trainer.keep=0")
    assert (same(ending(whole), ending(plain)), scores) == (True, expected)
    middle = next(path for path in checkpoints_in(whole.folder / "checkpoints") if path.stem.endswith("09"))
    again = assembled(*SMALL, *words, "trainer.duration=40", at, folder="again", resumed=middle)
    fit(again)
    for update in (13, 25):
        one, two = (read(snapshot_path(run.folder / "checkpoints", update)) for run in (whole, again))
        assert same(one["state_dict"], two["state_dict"])
        assert same(one["optimizer_states"], two["optimizer_states"])
    assert json.loads((again.folder / "validations.jsonl").read_text().splitlines()[-1])["update"] == 40
