"""What other tools call the keys and options of Cadence, and how a value is written here."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from trainer.cli.override import key_of

TABLE = """
trainer.duration={}ep | 20 | the length is | epochs max_epochs num_epochs n_epochs num_train_epochs total_epochs
trainer.duration={n} | 1000 | the length is | steps max_steps num_steps total_steps num_training_steps updates
    max_updates iterations max_iters num_iterations train_iters T_max total_iters lr_decay_iters
trainer.duration=20 | | a short run is | limit_train_batches limit_val_batches
trainer=debug | | a short run that checks a config is | fast_dev_run debug dry_run smoke_test
trainer.overfit={} | 1 | the batches that are trained on again and again are | overfit overfit_batches
trainer.profile=true | | to see where the time of an update goes write | profiler profile
trainer.quiet=true | | a run that prints less is | quiet silent
hydra.verbose=true | | a run that prints more is | verbose
trainer.validate={n} | 500 | validation comes every | val_check_interval eval_steps eval_interval eval_every
    val_interval eval_freq
trainer.validate={}ep | 1 | validation comes every | check_val_every_n_epoch val_every_n_epochs eval_epochs
trainer.checkpoint={n} | 500 | checkpoints between validations come every | save_steps save_interval save_every
    save_freq every_n_train_steps checkpoint_interval ckpt_interval
trainer.keep={} | 2 | the newest checkpoints that are kept are | save_total_limit save_top_k max_to_keep
trainer.log_every={} | 10 | the log has every update, and is written every | log_every_n_steps logging_steps
    log_interval log_freq print_freq
trainer.accumulate={} | 4 | the micro-batches of an update are | accumulate accumulate_grad_batches grad_accum
    gradient_accumulation_steps accumulation_steps grad_accum_steps
trainer.clip={} | 1.0 | the largest norm of the gradients is | clip gradient_clip_val gradient_clip gradient_clipping
    grad_clip clip_grad clip_grad_norm max_grad_norm clipnorm
trainer=ddp trainer.devices={} | 2 | the processes of a machine are | devices gpus num_gpus n_gpu ngpu
    num_processes nproc_per_node world_size
trainer.nodes={} | 2 | the machines are | nodes nnodes num_nodes
trainer=ddp trainer.devices=2 | | several processes are | ddp distributed use_ddp
trainer=fsdp trainer.devices=2 | | processes that each hold a part of the weights are | fsdp
trainer.strategy={} | ddp | the strategy is | strategy
trainer.accelerator={} | gpu | the device is | accelerator device
trainer.accelerator=cpu | | the device is | no_cuda use_cpu
trainer.precision={} | bf16-mixed | the precision is | precision mixed_precision dtype torch_dtype amp_dtype
trainer.precision=16-mixed | | mixed precision is | fp16 half amp use_amp use_fp16
trainer.precision=bf16-mixed | | mixed precision is | bf16 bfloat16
trainer.compile=true | | a compiled model is | compile torch_compile
trainer.cuda_graph=true | | a replayed update is | cuda_graph cuda_graphs
trainer.deterministic=true | | deterministic operations are | deterministic
+trainer.lightning.benchmark=true | | this option of Lightning's Trainer is | benchmark
trainer.channels_last=true | | the memory format is | channels_last
trainer.sync_batchnorm=true | | BatchNorm over all processes is | sync_bn sync_batchnorm
trainer.ddp.find_unused_parameters=true | | this option of DDP is | find_unused_parameters ddp_find_unused_parameters
trainer.max_time={} | 11h30m | the longest time is | max_time time_limit
trainer.sam={} | 0.05 | sharpness-aware minimisation is | sam sam_rho rho
trainer.agc={} | 0.01 | adaptive clipping is | agc agc_clip
resume.path={} | outputs/first | to go on from a run write | ckpt_path checkpoint_path resume_from load_from
    resume_from_checkpoint
init.path={} | weights.pt | weights to start from are | pretrained pretrained_weights init_from finetune_from
    model_name_or_path
hydra.run.dir={} | outputs/first | the run's folder is | output_dir default_root_dir save_dir log_dir logging_dir
    out_dir work_dir dirpath
name={} | first | the run's name is | run_name experiment_name exp_name
seed={} | 0 | the seed is | random_seed manual_seed seed_everything random_state
callbacks=early_stopping callbacks.early_stopping.patience={} | 5 | early stopping is | patience early_stopping
    early_stopping_patience
callbacks=none | | a run without a progress bar is | enable_progress_bar disable_tqdm
task.monitor={} | loss | the metric that decides the best checkpoint is | monitor metric_for_best_model
task.loss.label_smoothing={} | 0.1 | label smoothing is | label_smoothing smoothing label_smoothing_factor
~task.loss +task.step._target_=steps.mixup | | mixing samples is a step of your own, as in docs/own_work.md: |
    mixup mixup_alpha cutmix cutmix_alpha
optimizer.lr={} | 1e-3 | the learning rate at its peak is | lr learning_rate base_lr init_lr initial_lr max_lr peak_lr
optimizer={} | adamw | the optimizer is | optim opt optimiser optimizer_name optimizer_type optim_name optimizer.name
    optimizer.type
optimizer.weight_decay={} | 0.01 | the weight decay is | weight_decay wd l2 weight_decay_rate
optimizer=momentum optimizer.momentum={} | 0.9 | the momentum is | momentum
optimizer=nesterov | | Nesterov's momentum is | nesterov
optimizer=adamw optimizer.betas={} | [0.9,0.95] | the betas are | betas adam_betas
optimizer=adamw optimizer.betas=[0.9,0.95] | | both betas are | beta1 beta2 adam_beta1 adam_beta2
optimizer=adamw optimizer.eps={} | 1e-8 | epsilon is | eps epsilon adam_epsilon
schedule={} | cosine | the schedule is | lr_scheduler scheduler sched lr_scheduler_type scheduler_type scheduler_name
    lr_schedule schedule.name schedule.type
warmup=linear warmup.duration={n} | 500 | the warm-up is | warmup_steps num_warmup_steps warmup_updates warmup_iters
    warmup_iterations
warmup=linear warmup.duration={}ep | 1 | the warm-up is | warmup_epochs num_warmup_epochs
warmup=linear warmup.duration={%} | 0.05 | the warm-up is | warmup_ratio warmup_fraction warmup_proportion
warmup=linear warmup.start=0.1 | | the start of the warm-up, a share of the peak, is | warmup_lr warmup_init_lr
    warmup_start_lr warmup_lr_init start_factor
schedule=cosine schedule.floor=0.1 | | the lowest rate, a share of the peak, is | min_lr eta_min lr_min end_lr
    final_lr lr_end
schedule=cosine schedule.floor={} | 0.1 | the lowest rate, a share of the peak, is | min_lr_ratio min_lr_rate
schedule=step schedule.gamma={} | 0.1 | the factor of a step is | gamma lr_gamma lr_decay_rate
schedule=step schedule.every={}ep | 30 | steps come every | step_size lr_step_size lr_drop
schedule=multi_step schedule.milestones=[30ep,60ep] | | milestones are | milestones lr_milestones lr_steps
schedule=one_cycle schedule.rise={%} | 0.3 | the rise of one cycle is | pct_start
schedule=restarts schedule.first={n} | 1000 | the first cycle of restarts is | T_0 t_initial first_cycle_steps
schedule=restarts schedule.length_mult={} | 2.0 | each cycle is longer by the factor | T_mult t_mul cycle_mult
schedule=restarts schedule.cycles={} | 3 | the number of cycles is | num_cycles
schedule=polynomial schedule.power={} | 1.0 | the power of the decay is | power
average=ema average.decay={} | 0.999 | an average of the weights is | ema ema_decay use_ema model_ema model_ema_decay
average=swa | | the mean of the last weights is | swa use_swa swa_start
groups=layer_decay groups.decay={} | 0.75 | layer-wise decay of the rate is | layer_decay layer_lr_decay llrd
freeze=[backbone.*] | | parameters that are not trained are | freeze_backbone freeze_layers
data.batch_size={} | 64 | the batch of a device is | batch_size train_batch_size per_device_train_batch_size
    per_gpu_batch_size micro_batch_size bs
data.eval_batch_size={} | 256 | the batch in validation and test is | eval_batch_size per_device_eval_batch_size
    val_batch_size test_batch_size
data=dataset data.num_workers={} | 4 | processes that read data which is not in memory are | num_workers workers
    n_workers dataloader_num_workers
data={} | cifar10 | the data is | dataset dataset_name data_name
data=image_folder data.path={} | photos | the place of the data is | data_dir data_path dataset_path data_root
model={} | resnet18 | the model is | model_name arch architecture
model.dropout={} | 0.1 | dropout is | dropout drop_rate dropout_rate hidden_dropout_prob
"""
"""COMMAND | EXAMPLE | SENTENCE | NAMES, a line each; a line that begins with spaces goes on with the one before it.

In the command, `{}` is the value that was given, or the example where that one cannot stand there; `{n}` is a number
of updates, and a fraction becomes one of epochs; `{%}` is a share, written as a percentage.
"""
VALUES: Mapping[str, Mapping[str, str]] = {
    "trainer.precision={}": {
        **dict.fromkeys(["bf16", "bfloat16", "true"], "bf16-mixed"),
        **dict.fromkeys(["16", "fp16", "float16", "half"], "16-mixed"),
        **dict.fromkeys(["32", "fp32", "float32", "no"], "32-true"),
        **dict.fromkeys(["64", "fp64", "float64"], "64-true"),
    },
    "trainer.accelerator={}": {"cuda": "gpu", "cuda:0": "gpu"},
    "optimizer={}": {"adamw_torch": "adamw", "adamw_torch_fused": "adamw"},
}
"""Values of other tools in the same commands."""
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "schedule": {
        "cosineannealing": "cosine",
        "cosinedecay": "cosine",
        "cosineannealingwarmrestarts": "restarts",
        "cosinewithrestarts": "hard_restarts",
        "cosinewithwarmup": "cosine_warmup",
        "linearwithwarmup": "linear_warmup",
        "sgdr": "restarts",
        "cyclic": "triangular",
        "warmupstabledecay": "wsd",
        "reducelronplateau": "plateau=count",
        "plateau": "plateau=count",
    },
    "trainer": {"cuda": "gpu", "mps": "gpu", "fastdevrun": "debug"},
}
"""Options of other tools by group, as `plain_name` writes them, and the option here or another choice."""
_PARENTS = ("", "trainer", "trainer.lightning", "training", "train", "optimizer", "data", "schedule", "warmup", "model")
_NO_VALUE = ("", "true", "false", "none", "null")


class Answer(NamedTuple):
    """A row of the table."""

    command: str
    example: str
    sentence: str
    names: tuple[str, ...]


def _answers() -> Iterator[Answer]:
    for row in TABLE.strip().replace("\n    ", " ").splitlines():
        command, example, sentence, names = (cell.strip() for cell in row.split("|"))
        yield Answer(command, example, sentence, tuple(names.split()))


ANSWERS = tuple(_answers())
_BY_NAME = {name.lower(): answer for answer in ANSWERS for name in answer.names}


def key_of_others(key: str, value: object, config: Mapping[str, Any] | None = None) -> str | None:
    """What to write in place of a dotted key that another tool has, in a sentence; None for other keys.

    Where the config has the key of the command already, the command leaves out the choice of an option.

    Args:
        key: without a plus in front.
        value: what was given for it.
        config: as plain values; None where it is not known.
    """
    parent, _, name = key.lower().rpartition(".")
    answer = _BY_NAME.get(key.lower()) or (_BY_NAME.get(name) if parent in _PARENTS else None)
    if answer is None:
        return None
    words = with_value(answer, str(value)).split()
    if config is not None:
        words = _needed(words, config)
    if not words or [word.partition("=")[0] for word in words] == [key]:
        return None
    return f"{answer.sentence} {' '.join(words)}"


def option_of_others(group: str, option: str, known: list[str]) -> str | None:
    """The choice in place of an option that another tool has or writes otherwise, as schedule=cosine; else None."""
    name = plain_name(option)
    same = [one for one in known if plain_name(one) == name]
    found = same[0] if len(same) == 1 else OPTIONS.get(group, {}).get(name)
    return found if found is None or "=" in found else f"{group}={found}"


def plain_name(option: str) -> str:
    """`option` in small letters, without what joins words, and without LR at its end.

    >>> plain_name("CosineAnnealingLR"), plain_name("adam_w")
    ('cosineannealing', 'adamw')
    """
    return re.sub(r"[_\W]", "", option.removesuffix("LR").lower())


def with_value(answer: Answer, value: str) -> str:
    """The command with the value that was given, or with the example."""
    value = VALUES.get(answer.command, {}).get(value.lower(), value)
    if value.lower() in _NO_VALUE or not re.fullmatch(r"[\w.,+\-/\[\]]+", value):
        value = answer.example
    number = re.fullmatch(r"\d*\.?\d+(e-?\d+)?", value)
    if "{%}" in answer.command:
        return answer.command.replace("{%}", f"{100 * float(value if number else answer.example):g}%")
    updates = f"{value}ep" if number and "." in value else value
    return answer.command.replace("{n}", updates).replace("{}", value)


def _needed(words: list[str], config: Mapping[str, Any]) -> list[str]:
    """The words of a command that a config needs; none where it lacks a key of them."""
    keys = [key for key in map(key_of, words) if not key.startswith("hydra.")]
    dotted = [key for key in keys if "." in key]
    chosen = {key for key in keys if "." not in key}
    if any(key.partition(".")[0] not in config for key in keys):
        return []
    if dotted and "trainer" not in chosen and all(_has(config, key) for key in dotted):
        return [word for word, key in zip(words, keys, strict=True) if key in dotted]
    reached = all(_has(config, key) or key.partition(".")[0] in chosen for key in dotted)
    return words if reached or words[0][0] in "+~" else []


def _has(config: Mapping[str, Any], key: str) -> bool:
    node: Any = config
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True
