"""`trainer.profile=true` says where the time of an update goes, writes a trace, and changes no bit."""

import gzip
import json
import re

import pytest
import torch

from trainer.checkpoint.io import checkpoints_in, read
from trainer.lr import ConfigError
from trainer.measure.update_profile import TRACE
from trainer.run import fit

RUN = (
    *("data=synthetic", "data.samples=160", "data.batch_size=8", "data.val_samples=8", "model.hidden=[64]"),
    *("trainer.duration=40", "trainer.validate=40", "trainer.checkpoint=10", "trainer.keep=0", "model.dropout=0.2"),
)
PARTS = ("data", "forward, loss", "backward", "optimizer", "other", "an update")


def state(run):
    return {path.name: read(path)["state_dict"] for path in checkpoints_in(run.folder / "checkpoints")}


def table(text):
    rows = (re.match(r"(.+?)  +([\d.e+-]+) +(\d+)$", line) for line in text.splitlines())
    return {row[1].strip(): float(row[2]) for row in rows if row}


def test_the_table_sums_up_to_an_update_and_the_trace_holds_its_parts(assembled, capsys):
    run = assembled(*RUN, "trainer.profile=true")
    fit(run)
    text = capsys.readouterr().out
    assert "profile     5 updates after the first ones" in text
    times = table(text)
    assert set(PARTS) < times.keys()
    assert sum(times[part] for part in PARTS[:-1]) == pytest.approx(times["an update"], rel=0.05)
    assert all(times[part] > 0 for part in PARTS[:4])
    assert sum(name.startswith("aten::") for name in times) == 5
    with gzip.open(run.folder / TRACE) as file:
        names = [event.get("name", "") for event in json.load(file)["traceEvents"]]
    assert sum(name.startswith("Optimizer.step#") for name in names) == 5
    assert names.count("cadence: step") == 5


def test_it_changes_no_bit_of_the_run(assembled):
    plain, profiled = assembled(*RUN, folder="plain"), assembled(*RUN, "trainer.profile=true", folder="profiled")
    for run in (plain, profiled):
        fit(run)
    one, other = state(plain), state(profiled)
    assert one.keys() == other.keys() == {f"update-{t:08d}.ckpt" for t in (10, 20, 30, 40)}
    for name in one:
        assert all(torch.equal(one[name][key], other[name][key]) for key in one[name])
    assert not (plain.folder / TRACE).exists()


@pytest.mark.parametrize(
    ("words", "count"), [(("trainer.duration=3", "trainer.validate=3"), 1), (("trainer.accumulate=2",), 5)]
)
def test_short_runs_and_accumulated_ones_have_a_profile_too(assembled, capsys, words, count):
    fit(assembled(*RUN, *words, "trainer.checkpoint=null", "trainer.profile=true"))
    assert f"profile     {count} update" in capsys.readouterr().out


def test_a_run_that_goes_on_is_profiled_after_its_first_updates(assembled, capsys):
    first = assembled(*RUN)
    fit(first)
    middle = first.folder / "checkpoints" / "update-00000020.ckpt"
    capsys.readouterr()
    again = assembled(*RUN, "trainer.profile=true", folder="again", resumed=middle)
    fit(again)
    assert "profile     5 updates" in capsys.readouterr().out
    assert (again.folder / TRACE).exists()


def test_a_run_of_two_updates_is_refused(assembled):
    with pytest.raises(
        ConfigError, match="trainer.profile=true needs 3 updates, since the first ones take longer, and 2"
    ):
        assembled(*RUN, "trainer.duration=2", "trainer.validate=1", "trainer.checkpoint=null", "trainer.profile=true")
