"""One clock: every unit becomes a whole number of updates, once, and what makes no sense is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import ConfigError, Horizon

RUN = Horizon.of("20ep", samples=1000, batch_size=48, tokens_per_sample=64)


def test_an_epoch_leaves_out_the_rest_that_fills_no_update():
    assert (RUN.updates_per_epoch, RUN.total) == (20, 400)


@pytest.mark.parametrize(
    ("duration", "updates"),
    [
        (500, 500),
        (2000.0, 2000),
        ("500", 500),
        ("2e3", 2000),
        ("5ep", 100),
        ("0.5ep", 10),
        ("1 ep", 20),
        ("10%", 40),
        ("0.1%", 1),
        ("0.01ep", 0.2),
        ("12.5%", 50),
        ("4800 samples", 100),
        ("1e4 samples", 208),
        ("3072 tokens", 1),
        ("1e6 tokens", 326),
        (0, 0),
        ("0%", 0),
    ],
)
def test_a_duration_in_any_unit_is_a_number_of_updates(duration, updates):
    if updates == 0.2:
        with pytest.raises(ConfigError, match="longer"):
            RUN.updates(duration)
    else:
        assert RUN.updates(duration) == updates


@pytest.mark.parametrize("duration", ["2000", 2000, "20ep", "2e6 samples", "1e7 tokens"])
def test_the_length_of_a_run_is_such_a_duration(duration):
    run = Horizon.of(duration, samples=1000, batch_size=10, tokens_per_sample=4)
    assert run.total == {"20ep": 2000, "2e6 samples": 200_000, "1e7 tokens": 250_000}.get(duration, 2000)


@pytest.mark.parametrize(
    "bad",
    [
        *("", "ep", "five", "5 epochs", "-5", "5e", "1.5", "nan", "inf", "5 ep 3", "10 %%", "0x10", "1e99"),
        *(-1, 1.5, float("nan"), float("inf"), True, None, [5], "５"),
    ],
)
def test_what_is_no_duration_is_refused_in_one_line_that_names_the_key(bad):
    with pytest.raises(ConfigError, match=r"warmup\.duration") as error:
        RUN.updates(bad, "warmup.duration")
    assert "\n" not in str(error.value)


def test_units_that_the_data_does_not_have_are_refused():
    plain = Horizon.of(100, batch_size=8)
    for duration in ("3ep", "100 tokens"):
        with pytest.raises(ConfigError):
            plain.updates(duration)
    with pytest.raises(ConfigError, match="share of itself"):
        Horizon.of("10%", samples=100, batch_size=8)


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"2000.*1000"):
        Horizon.of("1ep", samples=1000, batch_size=2000)


@pytest.mark.parametrize("duration", [0, "0", "0ep"])
def test_a_run_without_an_update_is_refused(duration):
    with pytest.raises(ConfigError):
        Horizon.of(duration, samples=100, batch_size=8)


@given(percent=st.integers(0, 100), total=st.integers(100, 10**6))
def test_percents_are_of_the_whole_run_wherever_they_are_counted(percent, total):
    run = Horizon(total, batch_size=1)
    assert run.updates(f"{percent}%") == run.after(7).updates(f"{percent}%")
    assert abs(run.updates(f"{percent}%") - total * percent / 100) <= 0.5


@given(st.integers(0, 10**9))
def test_updates_stay_what_they_are(updates):
    assert RUN.updates(updates) == RUN.updates(str(updates)) == updates
