"""The jobs of a sweep are made from few composed configs, and are those that composing each one makes."""

import sys
from dataclasses import asdict

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.process_launcher import ProcessLauncher
from trainer.cli.compose import CONF
from trainer.cli.hydra_internals import composed_once, hydra_raises, initialized
from trainer.cli.run_id import register_run_id

MANY = [[f"optimizer.lr={0.001 * (i + 1)}", f"seed={i}"] for i in range(500)]
MIXED = [
    [f"schedule={schedule}", f"optimizer={optimizer}", f"optimizer.lr={lr}", *more]
    for schedule in ("cosine", "linear")
    for optimizer in ("sgd", "adamw")
    for lr in ("0.1", "0.2", "1e-3", "1", "abc")
    for more in ([], ["+data.extra=1"], ["trainer.threads=1"], ["~data.split_seed"], ["model.hidden=[8,8]"])
]


@pytest.fixture
def launcher(monkeypatch):
    """Makes a launcher of a sweep, and counts the configs that it composes."""
    register_run_id()
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "name=x"])
    with hydra_raises(), initialized(CONF):
        loader = GlobalHydra.instance().config_loader()

        def make(*words):
            master = loader.load_configuration("train", ["name=x", *words], run_mode=RunMode.MULTIRUN)
            made = ProcessLauncher(2, [], None, False)
            context = HydraContext(config_loader=loader, callbacks=None)
            made.setup(hydra_context=context, task_function=None, config=master)
            made.composed = []
            load = made.loader.load_sweep_config
            monkeypatch.setattr(loader, "load_sweep_config", lambda *a: made.composed.append(a) or load(*a))
            return made

        yield make


def fresh(launcher, number, overrides):
    """The job for which a config is composed."""
    launcher.alike._known.clear()
    return launcher.make_job(number, overrides)


def same(one, other):
    return [asdict(one[0]), one[1]] == [asdict(other[0]), other[1]]


def test_of_500_jobs_that_differ_in_numbers_one_config_is_composed(launcher):
    sweep = launcher()
    jobs = [sweep.make_job(number, overrides) for number, overrides in enumerate(MANY)]
    assert len(sweep.composed) == 1
    for number in (0, 7, 499):
        assert same(jobs[number], fresh(sweep, number, MANY[number]))


@pytest.mark.slow
@pytest.mark.sample(0)
def test_any_job_is_the_one_that_composing_makes(launcher):
    sweep = launcher()
    with composed_once():
        jobs = [sweep.make_job(number, overrides) for number, overrides in enumerate(MIXED)]
        assert len(sweep.composed) < len(MIXED)
        for number, overrides in enumerate(MIXED):
            assert same(jobs[number], fresh(sweep, number, overrides)), overrides


@pytest.mark.parametrize(
    "words",
    [
        "hydra.sweep.subdir='${optimizer.lr}'",
        "hydra.sweep.subdir='${hydra.job.override_dirname}'",
        "hydra.sweep.dir='outputs/${seed}'",
        "name='run_${seed}'",
        "trainer.devices='${seed}'",
        "resume.path='${name}'",
    ],
)
def test_where_a_number_may_decide_where_or_how_a_job_runs_each_config_is_composed(launcher, words):
    sweep = launcher(words)
    jobs = [sweep.make_job(i, [f"optimizer.lr=0.{i}", f"seed={i}", words]) for i in (1, 2, 3)]
    assert len(sweep.composed) == 3
    assert len({(job.folder, job.need) for job, _ in jobs}) == 3


@pytest.mark.parametrize("key", ["trainer.devices", "resume.floor", "hydra.job.num", "trainer.threads"])
def test_a_number_for_a_key_of_how_a_job_runs_is_composed(launcher, key):
    sweep = launcher()
    for i in (1, 2):
        sweep.make_job(i, [f"{key}={i}"])
    assert len(sweep.composed) == 2


def test_a_number_of_another_type_is_composed_and_refused_where_it_does_not_fit(launcher):
    sweep = launcher()
    for value in ("1", "2", "2.5", "1e3", "two", "'3'"):
        sweep.make_job(0, [f"optimizer.weight_decay={value}"])
    assert len(sweep.composed) == 4  # one int, one float, a word, a text
    with pytest.raises(Exception, match="there is no key|Could not override"):
        sweep.make_job(0, ["optimizer.weight_decai=1"])


def test_what_is_composed_once_is_what_hydra_composes(launcher):
    sweep = launcher()

    def flags(node):
        inner = [] if not OmegaConf.is_config(node) or node._is_none() or node._is_missing() else node._content
        parts = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else []
        return node._metadata.flags, node._metadata.ref_type, node._metadata.object_type, [flags(one) for one in parts]

    for overrides in (["schedule=linear"], ["schedule=linear", "seed=3"], ["optimizer=sgd", "+a.b=1"], []):
        expected = sweep.loader.load_sweep_config(sweep.config, overrides)
        with composed_once():
            for _ in range(3):
                made = sweep.loader.load_sweep_config(sweep.config, overrides)
                assert repr(made) == repr(expected)
                assert flags(made) == flags(expected)
                made.seed = 99


def test_a_search_path_of_its_own_gives_its_own_options(launcher, tmp_path):
    sweep = launcher()
    for place in ("a", "b"):
        (tmp_path / place / "warmup").mkdir(parents=True)
        (tmp_path / place / "warmup" / "mine.yaml").write_text(f"place: {place}\n")
    with composed_once():
        for place in ("a", "b"):
            words = [f"hydra.searchpath=['file://{tmp_path / place}']", "warmup=mine"]
            assert sweep.loader.load_sweep_config(sweep.config, words).warmup.place == place


def test_an_override_that_does_not_fit_is_refused_also_after_one_that_does(launcher):
    sweep = launcher()
    with composed_once():
        sweep.make_job(0, ["optimizer.lr=1"])
        for words in (["optimizer.lrr=1"], ["schedule=nope"], ["optimizer.lr.x=1"]):
            with pytest.raises((Exception, OmegaConfBaseException)):
                sweep.make_job(1, words)
