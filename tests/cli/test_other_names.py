"""A key, an option or a way to write that other tools have is answered in one line with what to write here."""

import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable

import pytest
from hydra.errors import HydraException
from omegaconf import DictConfig

from trainer.cli.compose import compose_config
from trainer.cli.hydra_internals import hydra_raises
from trainer.cli.messages import user_error_message
from trainer.cli.other_names import ANSWERS, OPTIONS, with_value
from trainer.config.settings import settings_of
from trainer.lr import ConfigError

KEYS = [
    ("epochs=5", "trainer.duration=5ep"),
    ("max_epochs=20", "trainer.duration=20ep"),
    ("trainer.max_epochs=5", "trainer.duration=5ep"),
    ("trainer.epochs=0.5", "trainer.duration=0.5ep"),
    ("training.num_train_epochs=3", "trainer.duration=3ep"),
    ("trainer.max_steps=1000", "trainer.duration=1000"),
    ("max_updates=1e4", "trainer.duration=1e4"),
    ("schedule.T_max=100", "trainer.duration=100"),
    ("trainer.limit_train_batches=0.1", "trainer.duration=20"),
    ("trainer.fast_dev_run=true", "trainer=debug"),
    ("trainer.overfit_batches=3", "trainer.overfit=3"),
    ("trainer.profiler=simple", "trainer.profile=true"),
    ("trainer.verbose=true", "hydra.verbose=true"),
    ("trainer.val_check_interval=0.25", "trainer.validate=0.25ep"),
    ("trainer.val_check_interval=100", "trainer.validate=100"),
    ("eval_steps=200", "trainer.validate=200"),
    ("trainer.check_val_every_n_epoch=2", "trainer.validate=2ep"),
    ("save_steps=500", "trainer.checkpoint=500"),
    ("trainer.save_top_k=3", "trainer.keep=3"),
    ("trainer.log_every_n_steps=10", "trainer.log_every=10"),
    ("trainer.accumulate_grad_batches=4", "trainer.accumulate=4"),
    ("gradient_accumulation_steps=8", "trainer.accumulate=8"),
    ("trainer.gradient_clip_val=0.5", "trainer.clip=0.5"),
    ("optimizer.max_grad_norm=1.0", "trainer.clip=1.0"),
    ("devices=4", "trainer=ddp trainer.devices=4"),
    ("trainer.gpus=2", "trainer=ddp trainer.devices=2"),
    ("num_nodes=2", "trainer.nodes=2"),
    ("strategy=ddp", "trainer.strategy=ddp"),
    ("device=cuda", "trainer.accelerator=gpu"),
    ("precision=bf16", "trainer.precision=bf16-mixed"),
    ("mixed_precision=fp16", "trainer.precision=16-mixed"),
    ("trainer.fp16=true", "trainer.precision=16-mixed"),
    ("amp=true", "trainer.precision=16-mixed"),
    ("trainer.bf16=true", "trainer.precision=bf16-mixed"),
    ("compile=true", "trainer.compile=true"),
    ("torch_compile=true", "trainer.compile=true"),
    ("trainer.benchmark=true", "+trainer.lightning.benchmark=true"),
    ("ckpt_path=outputs/a/checkpoints", "resume.path=outputs/a/checkpoints"),
    ("resume_from_checkpoint=true", "resume.path=outputs/first"),
    ("model.pretrained=true", "init.path=weights.pt"),
    ("output_dir=out/a", "hydra.run.dir=out/a"),
    ("trainer.default_root_dir=out", "hydra.run.dir=out"),
    ("run_name=second", "name=second"),
    ("random_seed=3", "seed=3"),
    ("patience=3", "callbacks=early_stopping callbacks.early_stopping.patience=3"),
    ("monitor=accuracy", "task.monitor=accuracy"),
    ("label_smoothing=0.2", "task.loss.label_smoothing=0.2"),
    ("data.mixup=0.2", "~task.loss +task.step._target_=steps.mixup"),
    ("lr=1", "optimizer.lr=1"),
    ("learning_rate=1e-4", "optimizer.lr=1e-4"),
    ("optimizer.learning_rate=1", "optimizer.lr=1"),
    ("model.learning_rate=0.1", "optimizer.lr=0.1"),
    ("schedule.max_lr=0.1", "optimizer.lr=0.1"),
    ("optim=adamw_torch", "optimizer=adamw"),
    ("optimizer.name=sgd", "optimizer=sgd"),
    ("weight_decay=0.1", "optimizer.weight_decay=0.1"),
    ("momentum=0.8", "optimizer=momentum optimizer.momentum=0.8"),
    ("optimizer.momentum=0.8", "optimizer=momentum optimizer.momentum=0.8"),
    ("betas=[0.9,0.95]", "optimizer.betas=[0.9,0.95]"),
    ("optimizer.beta2=0.95", "optimizer.betas=[0.9,0.95]"),
    ("optimizer.adam_epsilon=1e-6", "optimizer.eps=1e-6"),
    ("lr_scheduler=cosine", "schedule=cosine"),
    ("lr_scheduler_type=linear", "schedule=linear"),
    ("warmup_steps=100", "warmup.duration=100"),
    ("schedule.warmup_epochs=2", "warmup.duration=2ep"),
    ("warmup_ratio=0.03", "warmup.duration=3%"),
    ("schedule.warmup_start_lr=1e-6", "warmup.start=0.1"),
    ("schedule.min_lr=1e-5", "schedule.floor=0.1"),
    ("schedule.eta_min=1e-5", "schedule.floor=0.1"),
    ("schedule.gamma=0.5", "schedule=step schedule.gamma=0.5"),
    ("step_size=10", "schedule=step schedule.every=10ep"),
    ("schedule.milestones=[30,60]", "schedule=multi_step schedule.milestones=[30ep,60ep]"),
    ("schedule.pct_start=0.25", "schedule=one_cycle schedule.rise=25%"),
    ("schedule.T_0=200", "schedule=restarts schedule.first=200"),
    ("ema_decay=0.99", "average=ema average.decay=0.99"),
    ("trainer.ema=true", "average=ema average.decay=0.999"),
    ("swa=true", "average=swa"),
    ("batch_size=16", "data.batch_size=16"),
    ("per_device_train_batch_size=8", "data.batch_size=8"),
    ("trainer.batch_size=16", "data.batch_size=16"),
    ("num_workers=8", "data=dataset data.num_workers=8"),
    ("dataset=cifar10", "data=cifar10"),
    ("data.data_dir=photos", "data=image_folder data.path=photos"),
    ("dropout=0.3", "model.dropout=0.3"),
]
CHOICES = [
    ("schedule=CosineAnnealingLR", "schedule=cosine"),
    ("schedule=OneCycleLR", "schedule=one_cycle"),
    ("schedule=StepLR", "schedule=step"),
    ("schedule=cosine_with_restarts", "schedule=hard_restarts"),
    ("schedule=ReduceLROnPlateau", "plateau=count"),
    ("optimizer=AdamW", "optimizer=adamw"),
    ("optimizer=SGD", "optimizer=sgd"),
    ("model=ResNet18", "model=resnet18"),
    ("trainer=cuda", "trainer=gpu"),
]
ADDED = [
    ("+epochs=5", "epochs is not a key of the config: the length is trainer.duration=5ep"),
    ("+trainer.max_epochs=5", "trainer.max_epochs is not known to TrainerSettings: the length is trainer.duration=5ep"),
]
SPELT = [
    (["foo"], "write KEY=VALUE without spaces: foo=VALUE."),
    (["optimizer.lr", "=", "0.1"], "write KEY=VALUE without spaces: optimizer.lr=0.1."),
    (["optimizer.lr", "=0.1"], "write KEY=VALUE without spaces: optimizer.lr=0.1."),
    (["optimizer.lr=", "0.1"], "write KEY=VALUE without spaces: optimizer.lr=0.1."),
    (["data.path=/tmp/ü/x.txt"], """quote the value: 'data.path="/tmp/ü/x.txt"'."""),
    (["data.path=/tmp/a=b/x"], """quote the value: 'data.path="/tmp/a=b/x"'."""),
    (["optimizer.lr=0.1,0.2"], "add -m for a sweep with a job for each; a list is optimizer.lr=[0.1,0.2]."),
    (
        ["logger._target_=pytorch_lightning.loggers.CSVLogger"],
        "logger has named entries: add '+logger.csv={_target_: pytorch_lightning.loggers.CSVLogger}'.",
    ),
]
FLAGS = [
    (["--optimizer.lr=0.1"], "a setting has no dashes: write optimizer.lr=0.1"),
    (["--epochs=5"], "a setting has no dashes: the length is trainer.duration=5ep"),
    (["--learning-rate", "0.1"], "a setting has no dashes: the learning rate at its peak is optimizer.lr=0.1"),
    (["--no-such", "3"], "--help shows the flags; a setting is KEY=VALUE."),
]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The line of a command whose overrides cannot be composed."""

    def line(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        with hydra_raises(), pytest.raises(HydraException) as raised:
            compose_config(words)
        said = user_error_message(raised.value)
        assert said is not None
        assert len(said.splitlines()) == 1
        return said

    return line


def test_each_name_of_another_tool_has_one_answer() -> None:
    counted = Counter(name.lower() for answer in ANSWERS for name in answer.names)
    assert [name for name, count in counted.items() if count > 1] == []
    assert len(counted) >= 200


@pytest.mark.sample(12)
@pytest.mark.parametrize("command", [with_value(answer, answer.example) for answer in ANSWERS])
def test_every_answer_can_be_composed(command: str) -> None:
    with hydra_raises():
        compose_config(command.split())


@pytest.mark.sample(2)
@pytest.mark.parametrize(("group", "choice"), [(group, one) for group in OPTIONS for one in OPTIONS[group].values()])
def test_every_choice_in_place_of_an_option_can_be_composed(group: str, choice: str) -> None:
    with hydra_raises():
        compose_config([choice if "=" in choice else f"{group}={choice}"])


@pytest.mark.sample(14)
@pytest.mark.parametrize(("word", "command"), KEYS)
def test_a_key_of_another_tool_is_answered_with_ours_and_its_value(
    refused: Callable[..., str], word: str, command: str
) -> None:
    said = refused(word)
    assert said.startswith(f"{word}: ")
    assert said.endswith(
        (f" is {command}", f" are {command}", f" every {command}", f" write {command}", f": {command}")
    )


@pytest.mark.sample(4)
@pytest.mark.parametrize(("word", "choice"), CHOICES)
def test_an_option_of_another_tool_is_answered_with_ours(refused: Callable[..., str], word: str, choice: str) -> None:
    assert refused(word).startswith(f"{word}: no such option, did you mean {choice}? options of ")


def test_a_key_that_the_config_has_needs_no_other_option(refused: Callable[..., str]) -> None:
    assert refused("optimizer=sgd", "momentum=0.9") == "momentum=0.9: the momentum is optimizer.momentum=0.9"


def test_a_key_that_the_chosen_option_lacks_is_not_answered_with_itself(refused: Callable[..., str]) -> None:
    said = refused("model=gpt", "data=synthetic", "optimizer=sgd", "schedule.duration=3")
    assert said.startswith("schedule.duration=3: there is no key schedule.duration")


@pytest.mark.parametrize(("word", "expected"), ADDED)
def test_an_added_key_of_another_tool_is_answered_too(
    compose: Callable[..., DictConfig], word: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        settings_of(compose(word))
    assert str(raised.value) == expected


@pytest.mark.parametrize(("words", "expected"), SPELT)
def test_a_setting_that_cannot_be_read_is_shown_as_it_is_written(
    refused: Callable[..., str], words: list[str], expected: str
) -> None:
    assert refused(*words).endswith(expected)


@pytest.mark.parametrize(("words", "expected"), FLAGS)
def test_a_setting_with_dashes_is_shown_without_them(
    monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    parser = ArgumentParser()
    parser.add_argument("overrides", nargs="*")
    with hydra_raises(), pytest.raises(ConfigError) as raised:
        parser.parse_args(words)
    assert str(raised.value) == f"unrecognized arguments: {words[0]}: {expected}"
