"""What many tests need: a config as the command line would compose it, and a run assembled from it."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
settings.register_profile("some", deadline=None, max_examples=40)  # a busy machine is no failure
settings.register_profile("all", deadline=None, max_examples=200)
ROOT = Path(__file__).parent.parent
ALL_CASES = "--all-cases"
HANDLED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
QUIET = ("callbacks=none", "trainer.accelerator=cpu", "trainer.threads=1", "name=test")


def pytest_addoption(parser):
    parser.addoption(ALL_CASES, action="store_true", help="run every case of the tests that are marked sample(n)")


def pytest_configure(config):
    settings.load_profile("all" if config.getoption(ALL_CASES) else "some")


def pytest_collection_modifyitems(config, items):
    """Of each test that is marked sample(n) keep n cases, evenly spread; the same in every process and on every day."""
    if config.getoption(ALL_CASES):
        return
    cases = {}
    for item in items:
        if mark := item.get_closest_marker("sample"):
            cases.setdefault((item.parent.nodeid, item.originalname), (mark.args[0], []))[1].append(item)
    left = {item for count, found in cases.values() for item in found if item not in _evenly(found, count)}
    if left:
        config.hook.pytest_deselected(items=sorted(left, key=lambda item: item.nodeid))
        items[:] = [item for item in items if item not in left]


def _evenly(found, count):
    """`count` of what was found, evenly spread, or all where there are fewer."""
    return [found[i * len(found) // count] for i in range(count)] if count < len(found) else found


@pytest.fixture
def all_cases(request):
    """Whether every case is run, such as every update to resume at."""
    return request.config.getoption(ALL_CASES)


@pytest.fixture(autouse=True)
def signal_handlers():
    """Each test leaves the handlers as they were: what `train.py` ignores at its end, children would ignore too."""
    before = {signum: signal.getsignal(signum) for signum in HANDLED}
    yield
    for signum, handler in before.items():
        if signal.getsignal(signum) is not handler:
            signal.signal(signum, handler)


@pytest.fixture
def compose():
    """The config that `python train.py OVERRIDES` would see."""
    from hydra import compose as hydra_compose
    from hydra.core.global_hydra import GlobalHydra

    from trainer.cli.hydra_internals import hydra_raises, initialized
    from trainer.cli.run_id import register_run_id

    def make(*overrides):
        register_run_id()
        GlobalHydra.instance().clear()
        with hydra_raises(), initialized(ROOT / "conf"):
            return hydra_compose("train", [*QUIET, *overrides])

    return make


@pytest.fixture
def assembled(compose, tmp_path):
    """A run assembled from overrides, in a folder of the test's own, to go on from `resumed`; `fit` it to train."""
    from trainer.run import assemble

    def make(*overrides, folder="run", resumed=None):
        going_on = [f"resume.path='{resumed}'"] if resumed else []
        return assemble(compose(*overrides, *going_on), tmp_path / folder, resumed)

    return make


@pytest.fixture
def watching(monkeypatch):
    """The handlers of a run, for the time of a test; nothing noted, and something to keep."""
    from trainer.distributed.launch import signals

    before = {signum: signal.getsignal(signum) for signum in signals.SIGNALS}
    for name in ("_received", "_deferred"):
        monkeypatch.setattr(signals, name, [])
    signals.defer()
    for signum in signals.SIGNALS:
        signal.signal(signum, signals._handle)
    yield signals
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def interruptible():
    """The handler of SIGINT that Python starts with; a shell starts what it puts in the background deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def python():
    """The interpreter's command, for tests that start real processes."""
    return sys.executable


@pytest.fixture(scope="session")
def real_data():
    """The folder with the real data sets."""
    folder = os.environ.get("CADENCE_DATA")
    if not folder:
        pytest.skip("CADENCE_DATA does not name a folder with cifar10 and tinyshakespeare")
    return Path(folder)
