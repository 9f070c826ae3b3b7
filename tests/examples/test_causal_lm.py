"""The padded language model trains the same however its batches are cut, and as the Trainer of transformers does."""

import json
from copy import deepcopy
from functools import partial

import pytest
import torch

from tests.distributed import worlds
from tests.examples.projects import ALL, assembled, inside
from trainer.run import fit

(EXAMPLE,) = (example for example in ALL if example.name == "causal_lm")
GLOBAL, UPDATES = 16, 12
EPS = "optimizer.eps=1e-5"  # the gradient of the bias of keys is 0, and its rounding must not be scaled to an update
WORDS = (
    *("model._target_=tests.examples.double_gpt2.DoubleGPT2", "allow=[transformers,causal_lm,tests]"),
    *("+model.config.attn_pdrop=0", "+model.config.embd_pdrop=0", "+model.config.resid_pdrop=0"),
    *("trainer.precision=64-true", f"trainer.duration={UPDATES}", f"trainer.validate={UPDATES}", "logger=none"),
)


def prepared(folder, world, accumulate, *more):
    cut = (f"data.batch_size={GLOBAL // (world * accumulate)}", f"trainer.accumulate={accumulate}")
    where = (f"trainer.devices={world}", "trainer.strategy=ddp") if world > 1 else ()
    return assembled(EXAMPLE, folder, *WORDS, *cut, *where, *more)


def ended(run):
    """All weights in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in run.module.net.parameters()])


def trained(rank, world, folder):
    with inside(EXAMPLE.folder):
        run = prepared(folder / f"{world}", world, 1, EPS)
        fit(run)
    torch.save(ended(run), folder / f"{world}.{rank}.pt")


@pytest.mark.slow
def test_processes_and_micro_batches_of_any_number_train_the_same(tmp_path, all_cases):
    found = {}
    with inside(EXAMPLE.folder):
        for accumulate in (1, 2, 4) if all_cases else (1, 4):
            run = prepared(tmp_path / f"cut{accumulate}", 1, accumulate, EPS)
            start = ended(run)
            fit(run)
            found[1, accumulate] = ended(run)
    for world in (2, 4) if all_cases else (2,):
        assert worlds.run(world, trained, world, tmp_path) == [0] * world
        found |= {(world, rank): torch.load(tmp_path / f"{world}.{rank}.pt") for rank in range(world)}
    assert (found[1, 1] - start).abs().max() > 0.01
    for cut, weights in found.items():
        assert (weights - found[1, 1]).abs().max() <= 1e-12, cut


@pytest.mark.sample(0)
def test_the_validation_loss_does_not_depend_on_the_size_of_its_batches(tmp_path):
    found = []
    with inside(EXAMPLE.folder):
        for size in (200, 64, 7, 1):
            run = prepared(
                tmp_path / f"{size}", 1, 1, f"data.eval_batch_size={size}", "trainer.duration=2", "warmup=none"
            )
            fit(run)
            found.append(json.loads((run.folder / "validations.jsonl").read_text().splitlines()[-1]))
    for scores in found[1:]:
        assert scores["val/loss"] == pytest.approx(found[0]["val/loss"], rel=1e-12)
        assert scores["val/perplexity"] == pytest.approx(found[0]["val/perplexity"], rel=1e-6)
    assert found[0]["val/perplexity"] == pytest.approx(torch.tensor(found[0]["val/loss"]).exp().item(), rel=1e-6)


def trained_by_trainer(net, optimizer, micros, folder):
    """Four micro-batches to an update, at a constant rate, by the Trainer of transformers."""
    transformers = pytest.importorskip("transformers")

    class Ordered(transformers.Trainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(micros, batch_size=None)

    arguments = transformers.TrainingArguments(
        str(folder),
        max_steps=UPDATES,
        gradient_accumulation_steps=4,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    Ordered(net, arguments, train_dataset=micros, optimizers=(optimizer, None)).train()


@pytest.mark.parametrize(
    ("words", "make"),
    [
        (("optimizer=sgd", "optimizer.lr=0.5"), partial(torch.optim.SGD, lr=0.5)),
        (("optimizer=adamw", "optimizer.lr=0.01", EPS), partial(torch.optim.AdamW, lr=0.01, eps=1e-5)),
    ],
    ids=["sgd", "adamw"],
)
def test_transformers_trainer_gives_the_same_weights_with_the_same_batches(words, make, tmp_path):
    pytest.importorskip("accelerate")
    constant = ("schedule=constant", "warmup=none", "groups=all", "optimizer.weight_decay=0.01")
    with inside(EXAMPLE.folder):
        run = prepared(tmp_path / "run", 1, 4, *words, *constant)
        net, step, micros = deepcopy(run.module.net).double(), run.module.step, []

        def watched(model, batch, *, t):
            if model.training:
                micros.append(deepcopy(batch))
            return step(model, batch, t=t)

        run.module.step = watched
        fit(run)
    assert len(micros) == 4 * UPDATES
    assert len({batch["input_ids"].shape for batch in micros}) > 1
    trained_by_trainer(net, make(net.parameters(), weight_decay=0.01), micros, tmp_path / "trainer")
    assert next(net.parameters()).dtype == torch.float64
    theirs = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    assert (theirs - ended(run)).abs().max() <= 1e-12
