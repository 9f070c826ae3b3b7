"""What the switches of a run do: precision, memory format, compilation, checkpoints, early stopping, no log."""

import pytest
import torch

from trainer.checkpoint.io import BEST, checkpoints_in, read
from trainer.lr import ConfigError
from trainer.run import evaluate, fit

SMALL = ("data=synthetic", "data.samples=256", "data.val_samples=64", "data.test_samples=64", "data.batch_size=32")
BRIEF = ("trainer.duration=16", "trainer.validate=8", "model.hidden=[16]", "trainer.log_every=4")


def losses(assembly):
    """Fit, and return the training losses that the metric buffer got."""
    seen = []
    add = assembly.module.metric_buffer.add
    assembly.module.metric_buffer.add = lambda t, loss, *more: (seen.append(loss), add(t, loss, *more))
    fit(assembly)
    return torch.stack(seen)


def test_bfloat16_is_used_in_the_forward_pass_and_the_weights_stay_float32(assembled):
    plain = losses(assembled(*SMALL, *BRIEF, folder="plain"))
    mixed = assembled(*SMALL, *BRIEF, "trainer.precision=bf16-mixed", folder="mixed")
    dtypes = set()
    mixed.module.net.register_forward_hook(lambda net, args, output: dtypes.add(output.dtype))
    other = losses(mixed)
    assert dtypes == {torch.bfloat16}
    assert {parameter.dtype for parameter in mixed.module.net.parameters()} == {torch.float32}
    assert not torch.equal(plain, other)
    assert torch.allclose(plain, other.float(), rtol=0.05)


def test_channels_last_changes_the_memory_format_and_not_the_result(assembled):
    net = ("model=resnet9", "model.width=4", "data=digits", "trainer.duration=6", "trainer.validate=6", "warmup=none")
    plain = losses(assembled(*net, folder="plain"))
    last = assembled(*net, "trainer.channels_last=true", folder="last")
    weights = [p for p in last.module.net.parameters() if p.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert torch.allclose(plain, losses(last), rtol=1e-3)


@pytest.mark.slow
def test_a_compiled_model_trains_as_the_plain_one_does_and_saves_under_the_same_names(assembled):
    plain, compiled = (assembled(*SMALL, *BRIEF, f"trainer.compile={flag}", folder=flag) for flag in ("false", "true"))
    assert torch.allclose(losses(plain), losses(compiled), rtol=1e-4)
    assert plain.module.state_dict().keys() == compiled.module.state_dict().keys()


@pytest.mark.parametrize(("keep", "kept"), [(1, [16]), (2, [15, 16]), (0, [3, 6, 8, 9, 12, 15, 16])])
def test_checkpoints_are_written_at_the_updates_asked_for_and_only_the_newest_stay(assembled, keep, kept):
    assembly = assembled(*SMALL, *BRIEF, "trainer.checkpoint=3", f"trainer.keep={keep}")
    fit(assembly)
    found = [read(path)["cadence"]["updates"] for path in checkpoints_in(assembly.checkpointing.folder)]
    assert found == kept
    assert not list(assembly.checkpointing.folder.glob(".*"))


def test_the_best_checkpoint_is_the_one_that_is_tested(assembled):
    assembly = assembled(*SMALL, "trainer.duration=40", "trainer.validate=8", "model.hidden=[16]", "optimizer.lr=0.5")
    fit(assembly)
    best = assembly.checkpointing.best
    final = {name: value.clone() for name, value in assembly.module.state_dict().items()}
    with torch.no_grad():
        for parameter in assembly.module.net.parameters():
            parameter.zero_()
    scores = evaluate(assembly)
    saved = read(assembly.checkpointing.folder / BEST)
    assert saved["cadence"]["updates"] == best["update"]
    for name, value in assembly.module.state_dict().items():
        assert torch.equal(value, saved["state_dict"][name])
    if best["update"] == 40:
        assert all(torch.equal(final[name], value) for name, value in saved["state_dict"].items())
    inputs, targets = zip(*assembly.data.test_dataloader())
    with torch.no_grad():
        right = (assembly.module.net(torch.cat(inputs)).argmax(1) == torch.cat(targets)).float().mean().item()
    assert scores["accuracy"] == pytest.approx(right, abs=1e-6)


def test_validation_scores_are_those_of_the_whole_split(assembled):
    assembly = assembled(*SMALL, *BRIEF, "data.eval_batch_size=24")
    fit(assembly)
    inputs, targets = (torch.cat(parts) for parts in zip(*assembly.data.val_dataloader()))
    net = assembly.module.net.eval()
    with torch.no_grad():
        loss = assembly.module.step.loss(net(inputs), targets).item()
    assert assembly.trainer.callback_metrics["val/loss"].item() == pytest.approx(loss, rel=1e-5)


def test_early_stopping_ends_the_run_at_a_validation(compose, assembled):
    overrides = (*SMALL, "trainer.duration=400", "trainer.validate=8", "model.hidden=[16]", "optimizer.lr=1e-9")
    stop = ("callbacks=early_stopping", "~callbacks.progress", "callbacks.early_stopping.patience=2")
    assembly = assembled(*overrides, *stop, "callbacks.early_stopping.min_delta=0.1")
    fit(assembly)
    assert assembly.module.clock.t == 24


def test_without_a_logger_a_run_leaves_no_event_file(assembled):
    assembly = assembled(*SMALL, *BRIEF, "logger=none")
    fit(assembly)
    assert not list(assembly.folder.glob("events*"))
    assert assembly.module.recent["loss"] > 0


def test_frozen_parameters_belong_to_no_group_and_a_model_without_any_other_is_refused(compose):
    from trainer.optim.groups import check_coverage, decay_groups

    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    for parameter in net[0].parameters():
        parameter.requires_grad_(False)
    groups = decay_groups(net, 0.1, 0.01)
    assert [(group.name, group.size, group.weight_decay) for group in groups] == [
        ("decay", 2, 0.1),
        ("no_decay", 5, 0.0),
    ]
    assert [group.name for group in decay_groups(net, 0.0, 0.01)] == ["all"]
    with pytest.raises(ConfigError, match="no trainable parameter"):
        check_coverage(net.requires_grad_(False), groups)


def test_without_validation_data_every_update_is_logged_and_the_last_is_saved(assembled):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = ("data=synthetic", "data.samples=256", "data.val_samples=0", "data.test_samples=64", "data.batch_size=32")
    assembly = assembled(*data, *BRIEF, "trainer.keep=1", "trainer.duration=17", "trainer.log_every=50")
    fit(assembly)
    assembly.trainer.logger.close()
    events = EventAccumulator(str(assembly.folder), size_guidance={"scalars": 0}).Reload()
    assert [point.step for point in events.Scalars("lr/decay")] == list(range(17))
    assert [path.stem for path in checkpoints_in(assembly.checkpointing.folder)] == ["update-00000017"]
    assert set(evaluate(assembly)) == {"loss", "accuracy"}


def test_another_logger_gets_every_update_too(assembled, tmp_path):
    csv = (
        "logger=none",
        "+logger.csv._target_=pytorch_lightning.loggers.CSVLogger",
        f"+logger.csv.save_dir={tmp_path}",
    )
    assembly = assembled(*SMALL, *BRIEF, *csv)
    fit(assembly)
    assembly.trainer.logger.save()
    rows = next(tmp_path.glob("lightning_logs/*/metrics.csv")).read_text().splitlines()
    columns = rows[0].split(",")
    written = [row.split(",")[columns.index("lr/decay")] for row in rows[1:]]
    assert [float(lr) for lr in written if lr] == [assembly.module.spec.policy.lr(t) for t in range(16)]
