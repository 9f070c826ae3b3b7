"""The user's own curve, from a file or a function: what is in it is what comes out, and what is wrong in it is told."""

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.lr import ConfigError, Horizon, annotations
from trainer.lr.table import function, table

RUN = Horizon(12, batch_size=1)
CSV = "t,value\n0,1.0\n4,0.5\n10,0.25\n"


def written(folder, text, name="rates.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rates.csv", CSV),
        ("rates.CSV", "\ufeff t , value \r\n0,1\r\n\r\n4, 5e-1\r\n10,.25\r\n"),
        ("rates.json", "[[0, 1.0], [4, 0.5],\n [10, 0.25]]"),
    ],
)
def test_a_table_holds_each_value_until_the_next_row_or_goes_in_lines_from_one_to_the_next(tmp_path, name, text):
    path = written(tmp_path, text, name)
    stairs, lines = table(RUN, path=path), table(RUN, path=path, interpolation="linear")
    points = {0: 1, 3: 1, 4: 0.5, 9: 0.5, 10: 0.25, 11: 0.25, 12: 0.25, 10**12: 0.25}
    assert {t: stairs(t) for t in points} == points
    points = {0: 1, 1: 0.875, 4: 0.5, 7: 0.375, 10: 0.25, 12: 0.25, 10**12: 0.25}
    assert {t: lines(t) for t in points} == pytest.approx(points, rel=1e-12)
    assert (annotations(stairs), annotations(lines)) == ({"jumps": (4, 10)}, {"knots": (4, 10)})


@given(values=st.lists(st.floats(0, 1000), min_size=1, max_size=30))
def test_a_table_with_a_row_for_every_update_is_what_comes_out_bit_for_bit(tmp_path_factory, values):
    folder, run = tmp_path_factory.mktemp("tables"), Horizon(len(values), batch_size=1)
    rows = list(enumerate(values))
    as_csv = written(folder, "t,value\n" + "".join(f"{t},{value!r}\n" for t, value in rows))
    as_json = written(folder, json.dumps(rows), "rates.json")
    for path in (as_csv, as_json):
        for way in ("constant", "linear"):
            schedule = table(run, path=path, interpolation=way)
            assert [schedule(t) for t in range(len(values))] == pytest.approx(values, rel=1e-12)
            assert schedule(10**12) == values[-1]


def test_a_row_after_the_end_is_noted_and_the_rate_of_the_end_is_held(tmp_path):
    path = written(tmp_path, "t,value\n0,1\n8,0.5\n40,0.1\n")
    stairs, lines = table(RUN, path=path), table(RUN, path=path, interpolation="linear")
    assert (annotations(stairs)["jumps"], annotations(lines)["knots"]) == ((8, 40), (8, 40))
    assert stairs(12) == stairs(10**12) == 0.5
    assert lines(12) == lines(10**12) == pytest.approx(0.45)


def test_in_a_stretched_run_the_rows_come_later(tmp_path):
    schedule = table(Horizon(100, batch_size=1, stretch=Fraction(5, 2)), path=written(tmp_path, CSV))
    assert annotations(schedule)["jumps"] == (10, 25)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", CSV, "is not a table: give a .csv file"),
        ("a.csv", "", "its first line is not t,value"),
        ("a.csv", "0,1\n1,0.5\n", "its first line is not t,value"),
        ("a.csv", "t,value\n", "has no rows"),
        ("a.csv", "t,value\n0\n", "row 1 is [0], not a pair"),
        ("a.csv", "t,value\n0,1,2\n", "row 1 is [0, 1.0, '2'], not a pair"),
        ("a.csv", "t,value\n0,1\nsoon,1\n", "in row 2, t='soon'"),
        ("a.csv", "t,value\n0,1\n1.5,1\n", "in row 2, t='1.5'"),
        ("a.csv", "t,value\n0,1\n1,high\n", "in row 2, value='high'"),
        ("a.csv", "t,value\n0,nan\n", "in row 1, value=nan"),
        ("a.csv", "t,value\n0,1\n1,inf\n", "in row 2, value=inf"),
        ("a.csv", "t,value\n0,-0.1\n", "in row 1, value=-0.1"),
        ("a.csv", "t,value\n0,1e9\n", "in row 1, value=1000000000.0"),
        ("a.csv", "t,value\n-1,1\n", "in row 1, t=-1"),
        ("a.csv", "t,value\n3,1\n", "in row 1, t=3 is out of order"),
        ("a.csv", "t,value\n0,1\n5,1\n4,1\n", "in row 3, t=4 is out of order"),
        ("a.csv", "t,value\n0,1\n5,1\n5,1\n", "in row 3, t=5 is out of order"),
        ("a.csv", "t,value\n0,1\n" + "9" * 5000 + ",1\n", "in row 2, t='999"),
        ("a.csv", 't,value\n"0,1\n', "is not a table"),
        ("a.csv", b"\xff\xfe\x00t", "is not a table"),
        ("a.json", "", "is not a table"),
        ("a.json", "[[0, 1.0], [1", "is not a table"),
        ("a.json", "[" * 100_000, "is not a table"),
        ("a.json", "{}", "is not a list of pairs"),
        ("a.json", "[]", "has no rows"),
        ("a.json", "[1]", "row 1 is 1, not a pair"),
        ("a.json", "[[0, NaN]]", "in row 1, value=nan"),
        ("a.json", "[[0, true]]", "in row 1, value=True"),
        ("a.json", "[[0.0, 1]]", "in row 1, t=0.0"),
        ("a.json", '[[0, "1"]]', "in row 1, value='1'"),
        ("a.json", "[[0, null]]", "in row 1, value=None"),
        ("a.json", '["ab"]', "row 1 is ab, not a pair"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line_that_says_where(tmp_path, name, text, says):
    with pytest.raises(ConfigError) as error:
        table(RUN, path=written(tmp_path, text, name))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"path": "nowhere/rates.csv"}, "path=nowhere/rates.csv cannot be read: No such file or directory"),
        ({"path": "a\0.csv"}, "is not a table"),
        ({"path": None}, "path=None"),
        ({"path": 3}, "path=3"),
        ({"path": "a.csv", "interpolation": "cubic"}, "interpolation='cubic'"),
    ],
)
def test_a_path_to_nothing_is_refused_in_one_line(settings, says):
    with pytest.raises(ConfigError) as error:
        table(RUN, **settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_table(tmp_path):
    (tmp_path / "rates.csv").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        table(RUN, path=str(tmp_path / "rates.csv"))


def test_a_function_is_called_with_the_update_and_not_past_the_last():
    asked = []

    def mine(t):
        asked.append(t)
        return [1.0, 0.5, 0.25][t]

    schedule = function(Horizon(5, batch_size=1).after(2), of=mine)
    assert [schedule(t) for t in (0, 1, 2, 3, 10**12)] == [1.0, 0.5, 0.25, 0.25, 0.25]
    assert asked == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, None, "1", True, 1e9, [1.0]])
def test_a_function_that_gives_no_share_is_refused_with_the_update_and_the_value(value):
    schedule = function(RUN, of=lambda t: value if t == 7 else 1)
    assert schedule(6) == 1.0
    with pytest.raises(ConfigError, match=r"of\(7\)="):
        schedule(7)


def test_what_cannot_be_called_is_no_function():
    with pytest.raises(ConfigError, match="of=0.5 cannot be called"):
        function(RUN, of=0.5)
