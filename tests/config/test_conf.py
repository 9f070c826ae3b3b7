"""The control panel: every option of every group composes and builds, and overrides work in any order."""

import itertools
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from trainer.config.batch_scaling import scaled_numbers
from trainer.config.model_data import build_net, read_data
from trainer.config.module_optimizer import model_of, with_module_numbers
from trainer.config.resolve import horizon_of, plan_of
from trainer.config.settings import settings_of

CONF = Path(__file__).parents[2] / "conf"
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
OPTIONS = [(group, file.stem) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]


FOLDER = Path(__file__).parent
MODULE = ["task=lightning", "model=own", "model._target_=tests.engine.lightning_modules.TwoRates", "allow=[tests]"]
NEEDED = {
    "schedule=table": [f"schedule.path={FOLDER.parent / 'resume' / 'curve.csv'}"],
    "data=dataset": ["+data.train._target_=tests.data.own_sets.Rows", "allow=[tests]"],
    "data=loaders": ["+data.train._target_=tests.data.own_sets.train_loader", "data.batch_size=8", "allow=[tests]"],
    "data=lightning": ["+data.module._target_=tests.data.own_sets.LitRows", "data.batch_size=8", "allow=[tests]"],
    "schedule=function": ["schedule.of._target_=tests.config.test_every_option.falling", "allow=[tests]"],
    "data=parquet": ["data.path=rows.parquet", "data.samples=600"],
    "data=table": ["data.path=table.csv", "data.target=label"],
    "data=image_folder": ["data.path=photos"],
    "data=tokenized_text": ["data.path=text.txt", "data.tokenizer=words"],
    "data=token_file": ["data.context=16"],
    "data=hub": ["data.path=rows.csv"],
    "task=distillation": ["+task.step.teacher._target_=models.mlp.MLP", "+task.step.teacher.hidden=[8]"],
    "optimizer=gd": ["data.batch_size=419"],
    "model=own": ["model._target_=torch.nn.Linear", "+model.in_features=64", "+model.out_features=10"],
    "optimizer=module": MODULE,
    "groups=module": ["optimizer=module", *MODULE],
    "optimizer=own": ["optimizer._target_=torch.optim.SGD"],
    "scaling=own": ["scaling._target_=trainer.lr.linear_scaling"],
    "scaling=adascale": ["scaling.base_batch_size=32"],
    "scaling=critical": ["scaling.noise_batch=512"],
    "scaling=surge": ["scaling.noise_batch=512"],
    "scaling=rmsprop_sde": ["optimizer=rmsprop"],
    "compat=timm": ["warmup.start=1e-4"],
    "batch_schedule=grow": ["schedule=multi_step", "batch_schedule.max_batch_size=64"],
    "hyper_schedule=dropout_linear": ["model.dropout=0.1"],
    "hyper_schedule=gradient_noise_annealed": ["trainer.gradient_noise=0.01"],
    **{f"trainer={name}": ["trainer.devices=2", "trainer.nodes=1"] for name in ("slurm", "torchrun")},
}
"""What an option has no default for."""


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be, that is the question. " * 1000)
    return path


def overrides_for(group, option, path):
    """What an option needs beside itself."""
    chosen = [f"{'+' if group == 'hydra' else ''}{group}={option}"]
    if option in ("text", "token_file", "gpt", "language_modelling", "shakespeare_char"):
        chosen += ["data=text"] if group not in ("data", "experiment") else []
        chosen += [f"data.path={path}"]
    if group == "scaling" and option != "none":
        chosen += ["scaling.base_batch_size=16"]
    return chosen + NEEDED.get(f"{group}={option}", [])


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_composes_and_plans_a_run(compose, text_file, group, option):
    if (group, option) == ("adapter", "lora"):
        pytest.importorskip("peft")
    cfg = compose(*overrides_for(group, option, text_file), "trainer.duration=150", "trainer.validate=50")
    plan = plan_of(settings_of(cfg))
    assert len(plan.curve) == {"grow": 113, "increase_batch": 73}.get(option, 150)  # these make larger batches


@pytest.mark.sample(12)
@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group in ("model", "optimizer")])
def test_a_model_and_an_optimizer_build_and_step(compose, text_file, option):
    group = "model" if (CONF / "model" / f"{option}.yaml").exists() else "optimizer"
    cfg = compose(*overrides_for(group, option, text_file), *(["model.width=8"] if "resnet" in option else []))
    settings = settings_of(cfg)
    net = build_net(settings, read_data(settings).shape)
    settings = with_module_numbers(settings, net, horizon_of(settings))
    model = model_of(settings, scaled_numbers(settings.curve, horizon_of(settings)), net)
    optimizer = model.optimizer()
    claimed = [id(parameter) for entry in model.groups for parameter in entry.parameters]
    assert sorted(claimed) == sorted(id(parameter) for parameter in net.parameters())
    before = [parameter.detach().clone() for parameter in net.parameters()]
    for _ in range(12):  # some only look at the first gradient, or wait a few steps
        for parameter in net.parameters():
            parameter.grad = torch.rand_like(parameter)
        optimizer.step()
    assert all((a != b).any() for a, b in zip(before, net.parameters()))


def test_a_file_in_a_group_says_what_it_is_in_its_first_line():
    for file in CONF.rglob("*.yaml"):
        assert file.read_text().startswith("# "), file


def test_an_experiment_says_what_it_reproduces_how_to_run_it_what_to_expect_and_what_it_costs():
    for file in (CONF / "experiment").glob("*.yaml"):
        for word in ("# Reproduces:", "# Run:", "# Expect:", "# Cost:"):
            assert word in file.read_text(), file


@pytest.mark.parametrize(
    ("overrides", "warmup", "schedule"),
    [
        (["schedule=cosine"], "no_warmup", "cosine"),
        (["schedule=cosine_warmup"], "linear_warmup", "cosine"),
        (["schedule=linear_warmup"], "linear_warmup", "linear"),
        (["schedule=cosine_warmup", "warmup=none"], "no_warmup", "cosine"),
        (["warmup=none", "schedule=cosine_warmup"], "no_warmup", "cosine"),
        (["schedule=wsd", "warmup=linear", "warmup.duration=10%"], "linear_warmup", "wsd"),
        (["schedule=cosine_warmup", "schedule.floor=0.1", "warmup.start=0.2"], "linear_warmup", "cosine"),
    ],
)
def test_a_recipe_chooses_a_warmup_that_can_still_be_overridden(compose, overrides, warmup, schedule):
    cfg = compose(*overrides)
    assert (cfg.warmup._target_, cfg.schedule._target_) == (f"trainer.lr.{warmup}", f"trainer.lr.{schedule}")


def test_overrides_mean_the_same_in_any_order(compose):
    chosen = ["optimizer=sgd", "schedule=cosine", "warmup=linear", "warmup.duration=10%", "optimizer.lr=0.3"]
    plain = [
        OmegaConf.to_yaml(compose(*order)) for order in itertools.islice(itertools.permutations(chosen), 0, 120, 7)
    ]
    assert len(set(plain)) == 1


def test_the_scaled_peak_is_the_one_the_rule_gives(compose):
    cfg = compose(
        *("optimizer=sgd", "schedule=cosine", "warmup=linear", "warmup.duration=10%", "scaling=linear"),
        *("data.batch_size=256", "scaling.base_batch_size=64", "trainer.accumulate=2"),
    )
    length, rates = horizon_of(settings_of(cfg)), plan_of(settings_of(cfg)).policy
    assert (length.batch_size, length.updates_per_epoch, length.total) == (512, 2, 40)
    assert (rates.base_lr, rates.scale, rates.peak_lr, rates.warmup.updates) == (0.1, 8.0, 0.8, 4)
