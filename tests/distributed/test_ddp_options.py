"""Options of DDP: parameters that take no part in a loss, a static graph, buckets."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import nn

from models.mlp import MLP
from tests.distributed import worlds
from tests.engine import equality
from trainer.config.components import _strategy
from trainer.config.settings import settings_of
from trainer.lr import ConfigError

UNUSED = ("model._target_=tests.distributed.test_ddp_options.WithUnused", "allow=[tests]", "optimizer=momentum")
RUNS = {
    "plain": (1, ()),
    "static": (1, ("trainer.ddp.static_graph=true",)),
    "sam_static": (1, ("trainer.ddp.static_graph=true", "trainer.sam=0.05")),
    "buckets": (1, ("trainer.ddp.bucket_cap_mb=0.001", "trainer.ddp.gradient_as_bucket_view=false")),
    "frozen": (1, ("freeze=['layers.1.*']",)),
    "adapter": (2, ("adapter=lora", "adapter.r=2", "adapter.modules_to_save=[layers.7]")),
    "unused": (2, (*UNUSED, "trainer.ddp.find_unused_parameters=true")),
}
if find_spec("peft") is None:
    del RUNS["adapter"]
SHORT = ("trainer.duration=10", "trainer.validate=5")


class WithUnused(MLP):
    """Its parameters `spare` take no part in the loss."""

    def __init__(self, in_features: int, classes: int, **shape: Any) -> None:
        super().__init__(in_features, classes, **shape)
        self.spare = nn.Linear(3, 2)


def train_all(rank, world, folder):
    for name, (accumulate, words) in RUNS.items():
        ended = equality.train(folder / name, world, accumulate, *SHORT, *words)
        torch.save(ended["weights"], folder / f"{name}.{rank}.pt")
    refusals = []
    for words in ((), ("trainer.ddp.static_graph=true",)):
        try:
            equality.train(folder / "refused", world, 1, *SHORT, *UNUSED, *words)
        except ConfigError as error:
            refusals.append(str(error))
    torch.save(refusals, folder / f"refused.{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    def make(place):
        assert worlds.run(2, train_all, 2, place) == [0, 0]

    return worlds.once(tmp_path_factory, "ddp_options", make)


@pytest.mark.sample(0)
@pytest.mark.parametrize("name", RUNS)
def test_each_option_trains_the_weights_of_one_process(folder, name, tmp_path):
    words = [word for word in RUNS[name][1] if "trainer.ddp" not in word]
    whole = equality.train(tmp_path / "whole", 1, 1, *SHORT, *words)["weights"]
    for rank in (0, 1):
        assert (torch.load(folder / f"{name}.{rank}.pt") - whole).abs().max() <= 1e-12


@pytest.mark.sample(0)
@pytest.mark.parametrize("name", ["static", "buckets"])
def test_an_option_changes_no_bit_with_two_processes(folder, name):
    assert torch.equal(torch.load(folder / f"{name}.0.pt"), torch.load(folder / "plain.0.pt"))


@pytest.mark.sample(0)
def test_an_unused_parameter_is_refused_by_name_with_the_option_that_allows_it(folder):
    for rank in (0, 1):
        refusals = torch.load(folder / f"refused.{rank}.pt")
        assert len(refusals) == 2
        for refusal in refusals:
            assert refusal.startswith("spare.weight, spare.bias of the model took no part in the loss, and DDP waits")
            assert "set trainer.ddp.find_unused_parameters=true" in refusal


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("trainer.ddp.find_unused_parameters=1",), "trainer.ddp.find_unused_parameters=1 is not known"),
        (("trainer.ddp.bucket_cap_mb=0",), "trainer.ddp.bucket_cap_mb=0"),
        (("trainer.ddp=3",), "trainer.ddp=3 is not a group of options"),
        (("+trainer.ddp.static=true",), "trainer.ddp.static is not known to DDPOptions: did you mean static_graph"),
        (("trainer=fsdp", "trainer.ddp.static_graph=true"), "trainer.strategy=fsdp has none of them"),
        (("trainer.ddp.static_graph=true", "trainer.ddp.find_unused_parameters=true"), "choose one"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(compose, words, told):
    with pytest.raises(ConfigError, match=told) as refused:
        settings_of(compose(*words))
    assert "\n" not in str(refused.value)


GROWING = ("batch_schedule=grow", "batch_schedule.max_batch_size=64", "schedule=multi_step")


@pytest.mark.parametrize("words", [("trainer.accumulate=2",), GROWING])
def test_a_static_graph_with_accumulation_is_refused(assembled, words):
    chosen = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.ddp.static_graph=true", "data.batch_size=16")
    with pytest.raises(ConfigError, match="static_graph=true needs updates of one micro-batch"):
        assembled(*chosen, *words)


def test_one_process_makes_no_use_of_the_options(compose):
    run = settings_of(compose("trainer.ddp.static_graph=true")).trainer
    assert _strategy(run, None) == "auto"
