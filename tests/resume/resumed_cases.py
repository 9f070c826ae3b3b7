"""The runs that `sweep_of_points.py` stops and resumes: words of a config, by name."""

from tests.same_bits_cases import ADASCALE, DIGITS, GROWING, IMAGES, SMALL, TEXT

PLANTED = "+callbacks.planted._target_=tests.resume.planted.Planted allow=[tests] "
EVERY = PLANTED + "trainer.checkpoint=2 trainer.keep=0 "
_SYNTHETIC = "data=synthetic data.samples=96 data.val_samples=24 data.test_samples=24 "
OWN = "tests.data.own_sets."
ROWS = SMALL.replace(_SYNTHETIC, "") + (
    f"data=dataset data.train={{_target_:{OWN}Rows,noise:0.5}} data.val={{_target_:{OWN}Rows,count:20,begin:1000}} "
    f"data.shape={{classes:3}} model._target_={OWN}Mixed +task.step={{_target_:{OWN}row_step,_partial_:true}} "
    "~task.loss ~task.metrics.accuracy task.monitor=loss "
)
LIT = SMALL.replace("model.hidden=[8] model.dropout=0.2", "").replace(_SYNTHETIC, "data=digits data.batch_size=64 ") + (
    "task=lightning model=own model._target_=tests.engine.lightning_modules."
)
PLATEAU = "plateau=count plateau.patience=0 plateau.threshold=0.3 plateau.factor=0.5 "
STOPPING = (
    "callbacks=early_stopping ~callbacks.progress optimizer.lr=0.05 trainer.duration=60 trainer.validate=3 "
    "callbacks.early_stopping.min_delta=0.2 callbacks.early_stopping.patience="
)
OPTIMIZERS = (
    "adabound adadelta adafactor adagrad adam adamax adamw ademamix adopt cautious_adamw corrected_adamw dadapt_adam "
    "dadapt_sgd dog dowg lamb lars lion lookahead momentum muon nadam nesterov prodigy radam ranger rmsprop rmsprop_tf "
    "schedule_free_adamw schedule_free_radam schedule_free_sgd sgd sgd_noise soap stable_adamw"
).split()
HYPERS = (
    "dropout_linear gradient_noise_annealed,trainer.gradient_noise=0.01 label_smoothing_linear "
    "momentum_coupled,optimizer=momentum momentum_mirrored,optimizer=momentum weight_decay_cosine weight_decay_tied"
).split()

ONE: dict[str, str] = {
    **{f"optimizer {name}": f"{SMALL} optimizer={name} average=none" for name in OPTIMIZERS},
    "optimizer gd": f"{SMALL} optimizer=gd data.batch_size=24",
    "average ema": f"{SMALL} average=ema average.decay=0.9 model.norm=batch",
    "average ema recalibrated": f"{SMALL} average=ema average.decay=0.8 average.recalibrate=4 model.norm=batch",
    "average swa": f"{SMALL} average=swa average.start=4 average.every=3 model.norm=batch trainer.accumulate=2",
    "average of the optimizer": f"{SMALL} optimizer=schedule_free_adamw model.norm=batch",
    "plateau count": f"{SMALL} {PLATEAU} trainer.validate=3",
    "plateau greedy": f"{SMALL} plateau=greedy plateau.patience=0 trainer.validate=2 optimizer.lr=0.1",
    "plateau trend": f"{SMALL} plateau=trend plateau.window=4 trainer.validate=2 optimizer.lr=0.1",
    "early stopping 1": f"{SMALL} {STOPPING}1",
    "early stopping 3": f"{SMALL} {STOPPING}3 average=ema",
    "early stopping and plateau": f"{SMALL} {PLATEAU} {STOPPING}4 optimizer=momentum",
    "early stopping of an accuracy": f"{DIGITS} {STOPPING}2 callbacks.early_stopping.monitor=val/accuracy",
    "progress and doctor": f"{SMALL} callbacks=default",
    "adascale": f"{DIGITS} {ADASCALE}",
    "adascale in float64": f"{DIGITS} {ADASCALE} trainer.precision=64-true",
    "growing batch": f"{SMALL} {GROWING} average=ema",
    "growing batch and plateau": f"{SMALL} {GROWING} {PLATEAU}",
    **{
        f"hyper_schedule {name.partition(',')[0]}": f"{SMALL} hyper_schedule={name.replace(',', ' ')}"
        for name in HYPERS
    },
    "hyper_schedules": (
        f"{SMALL} hyper_schedule=[weight_decay_tied,dropout_linear,label_smoothing_linear,gradient_noise_annealed] "
        "trainer.gradient_noise=0.01 warmup_mode=overlay warmup=cosine warmup.duration=25% schedule=sequence"
    ),
    "measure all": f"{SMALL} measure=all measure.sharpness=8 optimizer=muon model.hidden=[8,8]",
    "measure noise": f"{SMALL} measure=noise measure.every=2 trainer.accumulate=4 measure.noise=0.9",
    "gradients": (
        f"{SMALL} optimizer=momentum trainer.clip=0.5 trainer.agc=0.05 trainer.sam=0.05 trainer.gradient_noise=0.01 "
        "trainer.accumulate=2"
    ),
    "layer_decay": f"{SMALL} groups=layer_decay groups.decay=0.8 model.hidden=[8,8] optimizer=nesterov",
    "backbone_head": f"{SMALL} groups=backbone_head groups.freeze=5 model.hidden=[8,8] warmup=none",
    "gradual_unfreezing": f"{SMALL} groups=gradual_unfreezing groups.every=6 model.hidden=[8,8] warmup=none",
    "patterns": (
        f"{SMALL} groups=patterns groups.patterns=[{{name:first,match:layers.1.*,lr_mult:3.0,weight_decay:0.2,clip:0.1,"
        "schedule:linear}]"
    ),
    "groups all": f"{SMALL} groups=all measure=norms",
    "groups no_decay": f"{SMALL} groups=no_decay",
    "mup": f"{SMALL} groups=mup groups.base_width=4 model.hidden=[8,8]",
    "group_schedule": f"{SMALL} +group_schedule.no_decay={{schedule:constant}}",
    "float64": f"{SMALL} trainer.precision=64-true average=ema optimizer=momentum trainer.accumulate=2",
    "bf16-mixed": f"{SMALL} trainer.precision=bf16-mixed",
    "bf16-true": f"{SMALL} trainer.precision=bf16-true average=ema",
    "wsd": f"{SMALL} schedule=wsd warmup=linear warmup.duration=4 cooldown=linear",
    "snapshots": f"{SMALL} trainer.snapshots=[5,14] schedule=restarts schedule.first=6",
    "no validation": f"{SMALL} data.val_samples=0 data.test_samples=0 trainer.validate=8",
    "regression": f"{SMALL} data=synthetic_regression task=regression optimizer=lookahead",
    "distillation": (
        f"{SMALL} task=distillation task.step.teacher={{_target_:models.mlp.MLP,hidden:[12]}} model.hidden=[8]"
    ),
    "balanced sampling": f"{DIGITS} data.sampling=balanced",
    "a fold": f"{DIGITS} data.folds=3 data.fold=1 average=ema",
    "own set": ROWS,
    "workers": f"{ROWS} data.num_workers=2",
    "workers and growing batch": (
        f"{ROWS} {GROWING.replace('data.samples=200', '')} data.num_workers=2 "
        f"data.train={{_target_:{OWN}Rows,noise:0.5,count:200}}"
    ),
    "streamed": f"{ROWS} data.train={{_target_:{OWN}Flow,noise:0.5}} trainer.duration=24",
    "streamed, of datasets": (
        f"{ROWS} data.train={{_target_:{OWN}hugging_rows}} trainer.duration=24 "
        f"data.collate_fn={{_target_:{OWN}stacked,_partial_:true}} data.val=null"
    ),
    "images, decoded by workers": f"{IMAGES} optimizer=momentum data.in_memory=false data.num_workers=2",
    "resnet": f"{IMAGES} optimizer=momentum average=ema data.augment.cutout=8 trainer.channels_last=true",
    "resnet18": f"{IMAGES} model=resnet18 optimizer=nesterov plateau=count plateau.patience=0",
    "gpt": f"{TEXT} optimizer=adamw trainer.clip=0.5",
    "gpt, muon": f"{TEXT} optimizer=muon groups=muon average=ema trainer.accumulate=2",
    "gpt in bf16": f"{TEXT} trainer.precision=bf16-mixed optimizer=lion",
    "module": f"{LIT}Classifier optimizer=momentum optimizer.weight_decay=0 task.monitor=val_loss",
    "module that keeps a mean": f"{LIT}Autoencoder optimizer=adamw task.monitor=loss average=ema",
    "module that optimizes by hand": f"{LIT}Adversarial optimizer=module task.monitor=val_distance task.mode=min",
}
"""Runs of one process."""
TWO: dict[str, str] = {
    "ddp": f"{SMALL} trainer=ddp trainer.devices=2 trainer.accumulate=2 trainer.clip=0.5 average=ema",
    "ddp, batch norm": (
        f"{SMALL} trainer=ddp trainer.devices=2 model.norm=batch trainer.sync_batchnorm=true measure=noise {PLATEAU}"
    ),
    "ddp, early stopping": f"{SMALL} trainer=ddp trainer.devices=2 {STOPPING}2",
    "ddp, adascale": f"{DIGITS} {ADASCALE} trainer=ddp trainer.devices=2 trainer.accumulate=2",
    "ddp, gpt": f"{TEXT} trainer=ddp trainer.devices=2 optimizer=muon groups=muon",
    "ddp, workers": f"{ROWS} trainer=ddp trainer.devices=2 data.num_workers=1",
    "fsdp": f"{SMALL} trainer=fsdp trainer.devices=2 trainer.clip=0.5 average=ema",
}
"""Runs of two processes."""


def words_of(case: str) -> list[str]:
    """The words of a case, with the planted callback and a checkpoint every two updates; later words win."""
    given: dict[str, str] = {}
    for word in f"{(ONE | TWO)[case]} {EVERY}".split():
        given[word.partition("=")[0]] = word
    words = list(given.values())
    return sorted(words, key=lambda word: word.startswith(("+", "~")))
