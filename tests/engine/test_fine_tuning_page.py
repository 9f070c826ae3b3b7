"""The page on fine-tuning holds: its commands run one after the other, and its model of transformers trains."""

import re
import shlex

import pytest
import torch

from data.module import DataModule, Splits
from data.source import Memory
from tests.pages import DOCS
from trainer.checkpoint.io import checkpoint_path
from trainer.config.run_summary import format_run, summary_of_run
from trainer.run import assemble, fit

PAGE = (DOCS / "fine_tuning.md").read_text()
SMALL = ("logger=none", "data.batch_size=64", "trainer.duration=40", "trainer.validate=20", "trainer.keep=0")


class Sentences(DataModule):
    """Twelve tokens of nine, padded with 0; the label says whether token 1 is among them."""

    shape = {}

    def read(self):
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(1, 9, (96, 12), generator=generator)
        there = torch.arange(12) < torch.randint(3, 13, (96, 1), generator=generator)
        tokens = tokens * there
        stored = {"input_ids": tokens, "attention_mask": there.long(), "labels": (tokens == 1).any(1).long()}
        return Splits(*(Memory({k: v[cut] for k, v in stored.items()}) for cut in (slice(64), slice(64, 96))))


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.fixture
def runs(assembled, tmp_path, monkeypatch):
    """The runs of the commands of the page by name, trained in the order of the page."""
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    found = {}
    for command in blocks("bash"):
        words = shlex.split(command.replace("\\\n", ""))
        assert words[:2] == ["cadence", "train"]
        name = words[2].removeprefix("name=")
        found[name] = assembled(*SMALL, *words[2:], folder=f"outputs/{name}")
        fit(found[name])
    return found


def test_the_commands_of_the_page_do_what_it_says(runs):
    assert list(runs) == ["pretrained", "tuned", "frozen", "by_depth", "lora"]
    rows = {name: format_run(summary_of_run(run.resolved)) for name, run in runs.items()}
    missing = "missing in the file, so as initialised: 2: layers.9.weight, layers.9.bias"
    assert ("", missing) in rows["tuned"]
    assert ("weights", "16 tensors from outputs/pretrained") in rows["frozen"]
    assert any(name == "frozen" and "statistics of 1 BatchNorm fixed" in text for name, text in rows["frozen"])
    mults = [group.lr_mult for group in runs["by_depth"].resolved.model.groups]
    assert sorted(set(mults)) == [0.75**2, 0.75, 1.0]
    assert not [name for name in runs["lora"].checkpointing.best_checkpoint()["state_dict"] if "base_layer" in name]
    losses = {name: run.checkpointing.best["scores"]["val/loss"] for name, run in runs.items()}
    assert all(losses[name] < losses["pretrained"] for name in ("frozen", "by_depth", "lora"))


def test_the_model_of_transformers_of_the_page_trains_by_config_and_resumes_to_the_bit(compose, tmp_path):
    pytest.importorskip("transformers")
    (text,) = blocks("yaml")
    small = {"vocab_size": 9, "max_position_embeddings": 12, "pad_token_id": 0, "hidden_size": 8}
    for name, content in {
        "model/bert.yaml": text + "".join(f"  {key}: {value}\n" for key, value in small.items() if key not in text),
        "data/sentences.yaml": "_target_: tests.engine.test_fine_tuning_page.Sentences\nbatch_size: 16\nsamples: 64\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    words = (
        *(f"hydra.searchpath=[file://{tmp_path}]", "model=bert", "task=model", "allow=[transformers,tests]"),
        *("data=sentences", "task.step.weight=null", "logger=none", "groups=layer_decay", "optimizer.lr=1e-2"),
        *("trainer.duration=20", "trainer.validate=10", "trainer.keep=0"),
    )
    whole = assemble(compose(*words), tmp_path / "whole")
    assert whole.module.net.classifier.out_features == 2
    assert len({group.name.removesuffix("_no_decay") for group in whole.resolved.model.groups}) == 5
    fit(whole)
    half = checkpoint_path(tmp_path / "whole" / "checkpoints", 10)
    resumed = assemble(compose(*words, f"resume.path={half}"), tmp_path / "resumed", half)
    fit(resumed)
    expected = state(whole.module.net)
    assert all(torch.equal(value, expected[name]) for name, value in state(resumed.module.net).items())
