"""The table of all measurements: ratios, targets and the page's rows; and that each measurement gives its lines."""

import json
import subprocess
import sys

import pytest

from benchmarks import bench, benchmark
from benchmarks.benchmark import MODULES
from benchmarks.compared import is_met, line, markdown, ratios
from benchmarks.growth import COSTS, exponents

READ = ["torch.load, mapped", "torch.distributed.checkpoint"]


@pytest.mark.parametrize(
    ("target", "expected", "met"),
    [
        ("<= 1.15", [0.5, 2.0, 1.0], True),
        (">= 0.95", [2.0, 0.5, 1.0], True),
        (">= 1.01", None, False),
        ("", None, None),
    ],
)
def test_a_ratio_is_one_of_times_or_of_speeds_and_is_held_against_its_target(target, expected, met):
    one = line("what", [1.0, 2.0, 3.0], "peer", [2.0, 1.0, 3.0], target)
    assert expected is None or ratios(one) == expected
    assert is_met(one) is met


def test_the_rows_of_the_page_have_both_times_the_ratio_and_the_verdict():
    table = markdown([line("a step", [0.002, 0.003, 0.004], "bare", [0.001, 0.001, 0.001], "<= 1.5")])
    assert (
        table.splitlines()[2]
        == "| a step | 3 ms (2 to 4) | bare | 1 ms (1 to 1) | 3.00 (2.00 to 4.00) | ≤ 1.5 | missed |"
    )


def test_an_exponent_is_the_slope_of_the_logarithms():
    assert exponents([1, 10, 100], [2.0, 200.0, 20_000.0]) == {"exponent": pytest.approx(2), "last": pytest.approx(2)}


def test_every_measurement_of_the_run_is_a_program_that_writes_its_numbers(python):
    for commands in (bench.QUICK, bench.FULL):
        for program, *words in commands.values():
            assert (bench.ROOT / "benchmarks" / program).is_file()
            if program == bench.BENCHMARK:
                assert benchmark.parse(words).what in MODULES
    assert set(bench.QUICK) == set(bench.FULL)


@pytest.mark.slow
@pytest.mark.sample(0)
def test_batches_and_growth_are_measured(tmp_path, capsys):
    out = tmp_path / "out.json"
    benchmark.main(["data", "--updates", "4", "--rounds", "1", "--out", str(out)])
    lines = json.loads(out.read_text())["lines"]
    assert {one["target"] for one in lines} == {"<= 1.15", ">= 0.95", ">= 0.9", ""}
    assert all(len(one["ours"]) == len(one["theirs"]) == 1 for one in lines)
    words = ["growth", "--updates", "2", "--rounds", "1", "--picture", str(tmp_path / "growth.svg"), "--out", str(out)]
    benchmark.main(words)
    assert set(json.loads(out.read_text())["costs"]) == set(COSTS)
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")


@pytest.mark.slow
@pytest.mark.sample(0)
def test_sharded_processes_are_measured_beside_bare_fsdp_that_ends_with_the_same_weights(tmp_path, python):
    words = ["fsdp", "--block", "5", "--updates", "10", "--out", str(tmp_path / "out.json")]
    done = subprocess.run([python, bench.ROOT / "benchmarks/benchmark.py", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(json.loads((tmp_path / "out.json").read_text())["rows"]) == {"cadence", "bare"}


@pytest.mark.slow
@pytest.mark.sample(0)
def test_checkpoints_are_measured_beside_both_savers_of_torch(tmp_path):
    words = ["--megabytes", "12", "--rounds", "1", "--threads", "1", "--folder", str(tmp_path)]
    command = [sys.executable, bench.ROOT / "benchmarks/checkpoint.py", *words, "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peers = [one["peer"] for one in json.loads((tmp_path / "out.json").read_text())["lines"]]
    assert peers == ["torch.save", "async_save, its wait", "async_save", *READ]


def test_the_script_for_a_gpu_refuses_a_machine_without_one(python):
    script = bench.ROOT / "benchmarks/gpu.py"
    done = subprocess.run(
        [python, script], capture_output=True, text=True, env={"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    )
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert "there is no GPU that torch can use" in done.stderr


@pytest.mark.sample(0)
def test_the_script_for_a_gpu_can_be_rehearsed_without_one(python, tmp_path):
    words = ["--device", "cpu", "--tiny", "--only", "graphs", "--out", str(tmp_path / "out.json")]
    subprocess.run([python, bench.ROOT / "benchmarks/gpu.py", *words], check=True)
    peers = [one["peer"] for one in json.loads((tmp_path / "out.json").read_text())["lines"]]
    assert peers == ["bare, eager, float32", "bare, CUDA graph, float32"] * 2
