"""Where processes share out weights, gradients and state, training and checkpoints are those of one that holds all."""

import os
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from models.gpt import GPT
from models.resnet import ResNet9
from tests.distributed import sharded, worlds
from tests.distributed.faults import fault, result, train, words
from tests.distributed.sharded import CUTS, LONG, OPTIMIZERS
from trainer.checkpoint.io import checkpoint_path
from trainer.config.sharding import SHOWN
from trainer.distributed.fsdp import fsdp_units
from trainer.lr import ConfigError

ROUNDING = {"everything": 1e-9}
"""The largest difference of two weights in float64, where it is not 1e-12: BatchNorm sums in another order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All runs of all worlds; starting processes is what takes the time."""
    return worlds.once(tmp_path_factory, "sharded", fill)


def fill(place):
    """Run every world: one process, then 2 and 4 with fsdp, then one that goes on from what they have left."""
    planted = words("lost", "trainer.strategy=fsdp", *fault(1, "training", "kill"), timeout=150)
    lost = worlds.start(2, train, place, "lost", planted, {})
    four = worlds.start(4, sharded.together, 4, place)
    sharded.alone(place)
    two = worlds.start(2, sharded.together, 2, place)
    for process in lost + four + two:
        process.join(300)
    sharded.go_on(place / "fsdp-to-one", 1, "one", sharded.middle(place, "fsdp"))
    assert [process.exitcode for process in four + two] == [0] * 6
    (place / "lost.codes").write_text(" ".join(str(process.exitcode) for process in lost))


def load(folder, name, rank=0):
    return torch.load(folder / f"{name}.{rank}.pt")


def apart(one, other):
    return (one["weights"] - other["weights"]).abs().max().item()


@pytest.mark.sample(0)
@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_fifty_updates_end_with_the_weights_of_one_process_and_log_the_same(folder, name):
    alone = torch.load(folder / f"{name}.pt")
    assert alone["weights"].dtype == torch.float64
    assert len(alone["logged"]["train/grad_norm"]) == 50
    for world, accumulate in CUTS[name]:
        for rank in range(world):
            run = load(folder, f"{name}-{world}x{accumulate}", rank)
            assert apart(run, alone) <= ROUNDING.get(name, 1e-12)
            assert run["scores"] == pytest.approx(alone["scores"], abs=1e-6)
            assert run["logged"].keys() == alone["logged"].keys() or rank
            for tag, values in run["logged"].items():
                if tag == "train/samples_per_second":
                    continue
                exact = tag.startswith("lr/")
                assert values == (alone["logged"][tag] if exact else pytest.approx(alone["logged"][tag], rel=1e-5)), tag


@pytest.mark.sample(0)
@pytest.mark.slow
def test_gradients_that_are_not_divided_by_the_processes_make_a_difference_that_is_seen(folder):
    wrong = load(folder, "summed")
    assert wrong["weights"].isfinite().all()
    assert apart(wrong, torch.load(folder / "momentum.pt")) > 1e-3


@pytest.mark.sample(0)
@pytest.mark.slow
def test_a_net_with_tied_weights_ends_as_on_one_process(folder):
    assert apart(load(folder, "gpt-2"), torch.load(folder / "gpt.pt")) <= 1e-12


@pytest.mark.sample(0)
@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_of_parts_has_the_weights_and_the_state_of_the_whole_and_goes_on_from_it(folder, name):
    for rank in (0, 1):
        assert max(load(folder, "stepped", rank)[name].values()) <= 1e-12


def test_every_optimizer_that_is_let_pass_is_among_those_that_are_compared():
    files = [worlds.ROOT / f"conf/optimizer/{name}.yaml" for name in (*OPTIMIZERS, "adamw", "gd")]
    made = re.findall(r"^ *_target_: (\S+)", "\n".join(path.read_text() for path in files), re.MULTILINE)
    for package, kinds in SHOWN.items():
        for kind in kinds:
            assert any(target.startswith(f"{package}.") and target.endswith(f".{kind}") for target in made), kind


@pytest.mark.sample(0)
@pytest.mark.slow
def test_each_rank_holds_half_and_gradients_are_exchanged_on_the_last_micro_batch_of_four_alone(folder):
    looks = [load(folder, "looked", rank) for rank in (0, 1)]
    assert looks[0]["scattered"] == looks[1]["scattered"] == [3] * 20  # once for each linear layer
    for what in ("parameters", "moments"):
        held, total = zip(*(look[what] for look in looks))
        assert sum(held) == total[0] == total[1]
        assert max(held) < 0.51 * total[0]


@pytest.mark.sample(0)
@pytest.mark.slow
def test_a_loss_of_one_rank_that_is_not_finite_stops_all_at_the_same_update(folder):
    told = [load(folder, "diverged", rank) for rank in (0, 1)]
    assert told[0] == told[1]
    assert told[0].startswith("update 5 has gradient norm nan")


@pytest.mark.sample(0)
@pytest.mark.slow
def test_in_bfloat16_it_trains_as_ddp_does(folder):
    ddp, fsdp = load(folder, "bf16-ddp"), load(folder, "bf16-fsdp")
    assert fsdp["weights"].dtype == torch.float32
    assert apart(fsdp, ddp) < 1e-3


@pytest.mark.sample(0)
@pytest.mark.slow
def test_a_run_that_goes_on_from_its_own_checkpoint_ends_with_the_same_bits(folder):
    for rank in (0, 1):
        first, second = load(folder, "whole-fsdp", rank), load(folder, "fsdp-to-fsdp", rank)
        assert torch.equal(first["weights"], second["weights"])
        assert first["scores"] == second["scores"]
        assert first["test"] == second["test"]


@pytest.mark.sample(0)
@pytest.mark.slow
@pytest.mark.parametrize("way", ["fsdp-to-ddp", "ddp-to-fsdp", "one-to-fsdp", "fsdp-to-one"])
def test_a_checkpoint_of_one_strategy_goes_on_under_another(folder, way):
    whole, on = load(folder, "whole-one"), load(folder, way)
    assert apart(on, whole) <= 1e-12
    assert on["test"] == pytest.approx(whole["test"], abs=1e-6)


@pytest.mark.sample(0)
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_checkpoints_hold_whole_plain_tensors_under_the_names_of_one_process(folder, kind):
    ours, theirs = (sharded.state_of(sharded.middle(folder, one)) for one in (kind, "one"))
    assert list(ours) == list(theirs)
    assert any(name.startswith("mean.") for name in ours)
    for name, value in ours.items():
        assert type(value) is type(theirs[name])
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            assert value.shape == theirs[name].shape
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size()
            assert torch.allclose(value, theirs[name], rtol=0, atol=1e-12)


@pytest.mark.sample(0)
@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_run_and_is_named(folder):
    assert (folder / "lost.codes").read_text() == "1 -9"
    left = result(folder, "lost")
    assert left["status"] == "failed"
    for text in ("rank 1 on ", "is gone: process"):
        assert text in (folder / "lost.0.txt").read_text().splitlines()[-1]
        assert text in left["error"]


@pytest.mark.slow
@pytest.mark.sample(0)
def test_a_plain_command_trains_tests_and_is_told_as_with_ddp(tmp_path):
    said = command(tmp_path, "plain", "trainer=fsdp", "trainer.accelerator=cpu", "average=ema")
    assert "global batch   64 = 32 per device × 2 devices" in said
    left = result(tmp_path, "plain")
    assert left["status"] == "completed"
    assert left["metrics"].keys() == {"val/loss", "val/accuracy", "test/loss", "test/accuracy"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_gpus_it_ends_with_the_weights_of_one_process_on_the_cpu_and_each_goes_on_from_the_other(tmp_path):
    count = torch.cuda.device_count()
    kinds = {
        "gpus": [
            "trainer=fsdp",
            "trainer.accelerator=gpu",
            f"trainer.devices={count}",
            f"data.batch_size={32 // count}",
        ],
        "cpu": ["trainer=cpu", "data.batch_size=32"],
    }
    exact = ["trainer.precision=64-true", "average=ema", "trainer.clip=0.1", "trainer.checkpoint=10", "trainer.keep=0"]
    for name, more in kinds.items():
        command(tmp_path, name, *exact, *more)
    for name, other in (("gpus", "cpu"), ("cpu", "gpus")):
        point = checkpoint_path(tmp_path / "outputs" / other / "checkpoints", 20)
        command(tmp_path, f"{name}-on", *exact, *kinds[name], f"resume.path={point}")
    theirs = sharded.state_of(checkpoint_path(tmp_path / "outputs/cpu/checkpoints", 40))
    for name in ("gpus", "gpus-on", "cpu-on"):
        ours = sharded.state_of(checkpoint_path(tmp_path / "outputs" / name / "checkpoints", 40))
        assert list(ours) == list(theirs)
        assert all(torch.allclose(ours[key].cpu(), theirs[key], rtol=0, atol=1e-9) for key in ours)
    command(tmp_path, "mixed", *kinds["gpus"], "trainer.precision=bf16-mixed", "average=ema")


def command(place, name, *more):
    """What `python train.py` says of a run of 40 updates."""
    given = [
        *(f"name={name}", "trainer.threads=1", "callbacks=none", "trainer.duration=40", "trainer.validate=20"),
        *("warmup=none", "logger=none", "model.hidden=[8]", *more),
    ]
    done = subprocess.run(
        [sys.executable, str(worlds.ROOT / "train.py"), *given],
        cwd=place, capture_output=True, text=True, timeout=300,
        env={name: value for name, value in os.environ.items() if name not in worlds.LAUNCHERS},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["trainer.agc=0.01"], "trainer.agc=0.01 needs the norm of each unit"),
        (["trainer.sam=0.05"], "trainer.sam=0.05 needs whole gradients"),
        (["trainer.compile=true"], "trainer.compile=true"),
        (["trainer.channels_last=true"], "trainer.channels_last=true"),
        (["measure=all"], "measure.sharpness=100"),
        (["measure=noise", "trainer.accumulate=2"], "measure=noise needs whole gradients"),
        (
            ["scaling=adascale", "scaling.base_batch_size=32", "optimizer=momentum", "warmup=none", "schedule=cosine"],
            "scaling=adascale needs whole gradients",
        ),
        *(
            ([f"optimizer={name}"], f"optimizer: {kind} is not known")
            for name, kind in (("muon", "Muon"), ("lars", "LARS"), ("soap", "SOAP"), ("dog", "DoG"))
        ),
        (
            [
                "optimizer=lookahead",
                "~optimizer.base.betas",
                "~optimizer.base.eps",
                "optimizer.base._target_=torch.optim.Adafactor",
                "~optimizer.base.fused",
            ],
            "optimizer: Adafactor is not known",
        ),
    ],
)
def test_what_needs_whole_weights_or_gradients_is_refused_in_one_line(assembled, overrides, says):
    with pytest.raises(ConfigError) as refusal:
        assembled("trainer=fsdp", "model.hidden=[8]", *overrides)
    assert says in str(refusal.value)
    assert "trainer=ddp" in str(refusal.value) or "take ddp" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_blocks_are_those_of_the_containers_but_for_what_is_shared_with_the_rest():
    gpt = GPT(16, 8, layers=3, heads=2, width=8)
    assert list(fsdp_units(gpt)) == list(gpt.blocks)
    resnet = ResNet9(3, 10, width=4)
    assert list(fsdp_units(resnet)) == list(resnet.features)
    opened = nn.Sequential(nn.ModuleList([nn.Linear(1, 1), nn.ReLU()]), nn.Linear(1, 1))
    assert list(fsdp_units(opened)) == [opened[0][0], opened[1]]
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    tied[2].weight = tied[0].weight
    assert list(fsdp_units(tied)) == [tied[1]]
    assert list(fsdp_units(nn.Linear(2, 2))) == []
