"""The values of a grid: equally spaced, zipped or crossed, each as short and exact as it was meant."""

import math

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hypothesis import given
from hypothesis import strategies as st

from trainer.cli.messages import user_error_message
from trainer.lr import ConfigError
from trainer.sweep.resolvers import linspace, logspace

ENDS = st.floats(1e-12, 1e12)


def jobs(*words: str, zip: object = ()) -> list[list[str]]:
    """The overrides of each job of a grid."""
    Plugins.instance()  # reads all plugins anew, once
    from hydra_plugins.grid_sweeper import GridSweeper

    overrides = OverridesParser.create().parse_overrides(list(words))
    (batch,) = GridSweeper(zip, None, None).split_arguments(overrides, None)
    return batch


def test_decades_are_the_floats_that_one_would_write() -> None:
    assert logspace(1e-4, 1e-1, 4) == [0.0001, 0.001, 0.01, 0.1]
    assert logspace(1e-1, 1e-4, 4) == [0.1, 0.01, 0.001, 0.0001]
    assert linspace(0.1, 0.7, 7) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert linspace(-1, 1, 5) == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_whole_numbers_stay_whole_where_all_are() -> None:
    assert [repr(value) for value in logspace(16, 256, 5)] == ["16", "32", "64", "128", "256"]
    assert [repr(value) for value in linspace(32, 128, 4)] == ["32", "64", "96", "128"]
    assert all(isinstance(value, float) for value in linspace(1, 2, 3))


@given(ENDS, ENDS, st.integers(2, 40))
def test_both_agree_with_numpy_and_keep_their_ends(start: float, stop: float, num: int) -> None:
    if abs(start / stop - 1) < 1e-6:
        return
    for ours, theirs in ((logspace, np.geomspace), (linspace, np.linspace)):
        values = ours(start, stop, num)
        assert (values[0], values[-1]) == (start, stop)
        np.testing.assert_allclose(values, theirs(start, stop, num), rtol=1e-12)


def test_digits_round_on_request_only() -> None:
    assert logspace(1e-4, 1e-1, 7)[1] == 10**-3.5 == 0.00031622776601683794
    assert logspace(1e-4, 1e-1, 7, digits=2)[1] == 0.00032


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("x=logspace(0,1,5)", "both ends of a logarithmic axis must be above zero"),
        ("x=logspace(1e-4,inf,5)", "inf is not a finite number"),
        ("x=linspace(nan,1,5)", "nan is not a finite number"),
        ("x=logspace(1e-4,1e-1,1)", "1 values do not span the ends"),
        ("x=logspace(1e-4,1e-1,-3)", "-3 values do not span the ends"),
        ("x=linspace(1,1,3)", "both ends are the same"),
        ("x=linspace(1,1.001,3,digits=2)", "repeat some: keep more digits"),
        ("x=linspace(1,2,3,digits=-1)", "digits=-1 must be a whole number"),
        ("x=logspace(a,1,3)", "mismatch type argument start"),
        ("x=logspace(1,2)", "missing a required argument: 'num'"),
        ("x=logspace(1,2,2.5)", "mismatch type argument num"),
        ("x=interval(1,2)", "a grid takes single values: give x=logspace"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_in_one_line(word: str, told: str) -> None:
    with pytest.raises(Exception, match=r"\S") as error:
        jobs(word)
    line = user_error_message(error.value)
    assert line is not None
    assert told in line
    assert "\n" not in line


def test_keys_are_crossed_and_the_last_varies_fastest() -> None:
    assert jobs("a=1,2", "b=linspace(0,1,3)", "c=5") == [
        [f"a={a}", f"b={b}", "c=5"] for a in (1, 2) for b in (0.0, 0.5, 1.0)
    ]


def test_zipped_keys_advance_together_and_cross_the_others() -> None:
    got = jobs("+a=1,2", "seed=0,1", "b=x,y", zip=["a", "b"])
    assert got == [["+a=1", "b=x", "seed=0"], ["+a=1", "b=x", "seed=1"], ["+a=2", "b=y", "seed=0"], got[3]]
    assert len(jobs("a=1,2", "b=1,2", "c=1,2,3", "d=4,5,6", zip=[["a", "b"], ["c", "d"]])) == 6


@pytest.mark.parametrize(
    ("words", "zipped", "told"),
    [
        (("a=1,2", "b=1,2,3"), ["a", "b"], "a has 2, b has 3 values"),
        (("a=1,2",), ["a", "b"], "names b, which this command gives no values"),
        (("a=1,2",), ["a"], "does not name two keys or more"),
        (("a=1,2", "b=1,2"), ["a", "b", "a"], "names a twice"),
        (("a=1,2", "b=1,2"), [["a", "b"], ["b", "a"]], "names a twice"),
        (("a=1,2", "b=1,2"), [["a", "b"], "a"], "does not name two keys or more"),
    ],
)
def test_keys_that_cannot_be_zipped_are_refused(words: tuple[str, ...], zipped: list[object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        jobs(*words, zip=zipped)


def test_a_deletion_and_a_quoted_text_reach_the_job_as_they_are() -> None:
    assert jobs("~a", "b='x, y',z") == [["~a", "b='x, y'"], ["~a", "b=z"]]


def test_the_middle_of_a_logarithmic_axis_is_its_geometric_mean() -> None:
    assert math.isclose(logspace(2e-5, 3, 3)[1], math.sqrt(2e-5 * 3), rel_tol=1e-15)
