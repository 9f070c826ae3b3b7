"""The small runs that `same_bits.py` trains, in the names of the newer version: one or more commands for each case."""

Command = tuple[str, ...]
"""A script of the root and its words. It runs beside the folder of the data files, which is `../data`."""


def train(*texts: str) -> Command:
    """A training by the words in `texts`, of which a later one replaces an earlier one of the same key."""
    given = {word.partition("=")[0]: word for word in " ".join(texts).split()}
    return ("train.py", *given.values())


def plan(group: str, options: str, *texts: str) -> Command:
    """The planned curves with each of the options of a group; an option may have settings, after a comma."""
    policies = [f"{group}={option.replace(',', ' ')}" for option in options.split()]
    words = " ".join(texts).split()
    return ("scripts/plan.py", *words, "--out", "outputs/run/plan", "--csv", "--compare", *policies)


TINY = (
    "name=run callbacks=none trainer.accelerator=cpu trainer.threads=1 trainer.duration=24 trainer.validate=8 "
    "trainer.steps_per_execution=5 trainer.log_every=7 model.hidden=[8] model.dropout=0.2 data.batch_size=4 "
)
DIGITS = TINY + "data=digits data.batch_size=32 "
SMALL = TINY + "data=synthetic data.samples=96 data.val_samples=24 data.test_samples=24 "
TEXT = TINY.replace("model.hidden=[8]", "model.layers=1 model.heads=2 model.width=16") + (
    "data=text data.path=../data/words.txt data.context=8 model=gpt task=language_modelling "
)
IMAGES = TINY.replace("model.hidden=[8] model.dropout=0.2", "model.width=4") + (
    "data=cifar10 data.path=../data data.samples=32 data.val_samples=16 data.batch_size=8 model=resnet9 "
)
WSD = "schedule=wsd warmup=linear warmup.duration=4 average=ema "
FIRST = train(SMALL, WSD, "name=first trainer.checkpoint=4 trainer.keep=0")
FROM = WSD + "resume.path=outputs/first/checkpoints/update-00000016.ckpt "
LONG = train(SMALL, "name=first optimizer=momentum plateau=count plateau.patience=0 plateau.factor=0.7 average=swa",
             "average.start=4 average.every=3 trainer.accumulate=2 trainer.checkpoint=1 trainer.keep=0",
             "trainer.validate=6 measure=noise measure.noise=0.9 model.norm=batch")  # fmt: skip
ADASCALE = (
    "data.batch_size=8 trainer.accumulate=4 optimizer=momentum schedule=cosine warmup=none trainer.duration=40 "
    "scaling=adascale scaling.base_batch_size=16 measure=noise measure.noise=0.9 average=ema average.scaled=true "
    "plateau=count plateau.patience=0 plateau.threshold=0.3 data.samples=1257 "
)
GROWING = (
    "optimizer=momentum optimizer.lr=0.02 schedule=multi_step schedule.gamma=0.3 trainer.accumulate=2 "
    "trainer.duration=4ep trainer.validate=1ep data.samples=200 batch_schedule=grow batch_schedule.max_batch_size=64 "
)
OPTIMIZERS = (
    "adabound,adadelta,adafactor,adagrad,adam,adamax,ademamix,adopt,cautious_adamw,corrected_adamw,dadapt_adam,"
    "dadapt_sgd,dog,dowg,lars,nadam,nesterov,prodigy,radam,ranger,rmsprop,rmsprop_tf,schedule_free_radam,"
    "schedule_free_sgd,soap,stable_adamw"
)
SCHEDULES = (
    "chebyshev constant constant_until cosine cosine_cyclic cosine_warmup exp_range exponential exponential_decay "
    "final_exponential flat_cosine half_cosine hard_restarts inverse_sqrt inverse_time linear linear_rate "
    "linear_warmup multi_step natural_exponential noam noam_hold noisy one_cycle one_cycle_stairs "
    "one_cycle_three_phase piecewise_constant piecewise_cosine piecewise_linear polynomial power_law product repeat "
    "restarts rex sequence sqrt_annealing square_annealing step stretch table,schedule.path=../data/curve.csv tanh "
    "tri_stage triangular triangular2 wsd wsd_s"
)
WARMUPS = "1-sqrt auto constant cosine exponential hold linear log none polynomial radam saturating sqrt"
HYPERS = "dropout_linear gradient_noise_annealed label_smoothing_linear momentum_coupled momentum_mirrored"
COMPATS = "composer fastai keras megatron nanogpt none optax timm torch torchtitan transformers"
SCALINGS = (
    "adam_sde auto critical,scaling.noise_batch=64 half_life legew linear none power sqrt surge,scaling.noise_batch=64"
)

CASES: dict[str, tuple[Command, ...]] = {
    "sgd": (train(SMALL, "optimizer=sgd schedule=multi_step trainer.clip=1 scaling=linear scaling.base_batch_size=2"),),
    "momentum": (train(DIGITS, "optimizer=momentum hyper_schedule=momentum_mirrored schedule=linear cooldown=cosine"),),
    "adamw_ema": (train(SMALL, "average=ema average.decay=0.9 model.norm=batch trainer.accumulate=2"),),
    "muon_measure_all": (train(SMALL, "optimizer=muon model.hidden=[8,8] measure=all measure.sharpness=8"),),
    "lion_swa": (train(SMALL, "optimizer=lion average=swa average.start=50% average.every=4"),),
    "lamb": (train(SMALL, "optimizer=lamb warmup=linear warmup.duration=25% scaling=sqrt scaling.base_batch_size=2"),),
    "lookahead": (train(SMALL, "data=synthetic_regression task=regression optimizer=lookahead"),),
    "gd_whole_set": (train(SMALL, "optimizer=gd data.batch_size=24 trainer.duration=8"),),
    "schedule_free": (train(SMALL, "optimizer=schedule_free_adamw model.norm=batch"),),
    "every_optimizer": (train("-m", SMALL, f"hydra.launcher.fork=true trainer.duration=12 optimizer={OPTIMIZERS}"),),
    "plateau": (
        train(SMALL, "plateau=count plateau.patience=0 plateau.factor=0.5 trainer.validate=2 optimizer.lr=0.1"),
    ),
    "greedy_early_stopping": (
        train(SMALL, "plateau=greedy plateau.patience=0 trainer.validate=2 trainer.duration=60 optimizer.lr=0.1",
              "callbacks=early_stopping callbacks.early_stopping.patience=3"),
    ),
    "adascale": (train(DIGITS, ADASCALE),),
    "growing_batch": (train(SMALL, GROWING, "average=ema"),),
    "layer_decay": (train(SMALL, "groups=layer_decay groups.decay=0.8 model.hidden=[8,8] optimizer=nesterov"),),
    "group_schedule": (
        train(SMALL, "+group_schedule.no_decay={schedule:constant} +group_schedule.decay={schedule:linear,floor:0.1}"),
    ),
    "backbone_head": (train(SMALL, "groups=backbone_head groups.freeze=5 model.hidden=[8,8] warmup=none"),),
    "patterns": (
        train(SMALL, "groups=patterns groups.patterns=[{name:first,match:layers.1.*,lr_mult:3.0,weight_decay:0.2,"
              "clip:0.1,schedule:linear}]"),
    ),
    "hyper_schedules": (
        train(SMALL, "hyper_schedule=[weight_decay_tied,dropout_linear,label_smoothing_linear,gradient_noise_annealed]",
              "trainer.gradient_noise=0.01 warmup_mode=overlay warmup=cosine warmup.duration=25% schedule=sequence"),
    ),
    "gradients": (
        train(SMALL, "optimizer=momentum trainer.clip=0.5 trainer.agc=0.05 trainer.sam=0.05",
              "trainer.gradient_noise=0.01 trainer.accumulate=2"),
    ),
    "measure_noise": (train(SMALL, "measure=noise measure.every=2 trainer.accumulate=4"),),
    "adam_sde": (train(SMALL, "scaling=adam_sde scaling.base_batch_size=2 warmup=linear warmup.duration=6"),),
    "compat_torch": (train(SMALL, "compat=torch optimizer=sgd schedule=step schedule.every=25%"),),
    "ddp": (
        train(SMALL, "trainer=ddp trainer.devices=2 trainer.accumulate=2 trainer.clip=0.5 average=ema model.norm=batch",
              "trainer.sync_batchnorm=true measure=noise plateau=count plateau.patience=0"),
    ),
    "fsdp": (train(SMALL, "trainer=fsdp trainer.devices=2 trainer.clip=0.5 average=ema"),),
    "gpt": (train(TEXT, "optimizer=adamw trainer.clip=0.5"),),
    "gpt_bf16": (train(TEXT, "trainer.precision=bf16-mixed"),),
    "mlp_bf16_true": (train(SMALL, "trainer.precision=bf16-true average=ema"),),
    "resnet": (train(IMAGES, "optimizer=momentum average=ema data.augment.cutout=8 trainer.channels_last=true"),),
    "float64": (train(SMALL, "trainer.precision=64-true average=ema optimizer=momentum trainer.accumulate=2"),),
    "resume_middle": (
        LONG,
        train(*LONG[1:], "name=run resume.path=outputs/first/checkpoints/update-00000011.ckpt"),
    ),
    "resume_float64_adascale": (
        train(DIGITS, ADASCALE, "name=first trainer.checkpoint=1 trainer.keep=0 trainer.precision=64-true"),
        train(DIGITS, ADASCALE, "resume.path=outputs/first/checkpoints/update-00000009.ckpt",
              "trainer.precision=64-true"),
    ),
    "resume_growing": (
        train(SMALL, GROWING, "name=first trainer.checkpoint=1 trainer.keep=0"),
        train(SMALL, GROWING, "resume.path=outputs/first/checkpoints/update-00000052.ckpt"),
    ),
    "resume_continue": (FIRST, train(SMALL, FROM, "resume.policy=continue trainer.duration=32")),
    "resume_continue_batch": (
        FIRST,
        train(SMALL, FROM, "resume.policy=continue data.batch_size=8 trainer.duration=12"),
    ),
    "resume_stretch": (FIRST, train(SMALL, FROM, "resume.policy=stretch trainer.duration=36")),
    "resume_rewarm": (
        FIRST,
        train(SMALL, FROM, "resume.policy=rewarm trainer.duration=40 schedule=cosine optimizer.lr=0.01"),
    ),
    "resume_branch_cooldown": (
        FIRST,
        train(SMALL, FROM, "resume.policy=branch_cooldown trainer.duration=26 resume.shape=linear resume.floor=0.1"),
    ),
    "resume_branch": (FIRST, train(SMALL, FROM, "resume.policy=branch trainer.duration=32")),
    "resume_override": (FIRST, train(SMALL, FROM, "resume.policy=override schedule=cosine optimizer.lr=0.01")),
    "resume_twice": (
        FIRST,
        train(SMALL, FROM, "name=second resume.policy=rewarm trainer.duration=40 schedule=cosine trainer.keep=0"),
        train(SMALL, "resume.path=outputs/second/checkpoints/update-00000032.ckpt resume.policy=branch_cooldown",
              WSD, "trainer.duration=38 schedule=cosine"),
    ),
    "resume_auto": (
        train(SMALL, "trainer.duration=10"),
        train(SMALL, "trainer.duration=20 resume=auto resume.policy=stretch"),
    ),
    "snapshot": (
        train(SMALL, WSD, "name=first trainer.snapshots=[14]"),
        train(SMALL, WSD, "trainer.duration=18",
              "resume.snapshot=outputs/first/checkpoints/at-00000014/update-00000014.ckpt"),
    ),
    "shared_prefix": (
        train("-m", SMALL, WSD, "hydra.launcher.shared_prefix=true trainer.duration=16,32,20 trainer.validate=5",
              "hyper_schedule=weight_decay_tied"),
    ),
    "sweep": (train("-m", SMALL, "optimizer.lr=0.003,0.03 seed=0,1 hydra.launcher.jobs=2"),),
    "search": (
        train("-m", SMALL, "hydra/sweeper=search hydra.sweeper.trials=5 hydra.sweeper.startup=2",
              "optimizer.lr=interval(0.001,0.1) hydra.launcher.fork=true"),
    ),
    "plan_schedules": (plan("schedule", SCHEDULES, "optimizer=adamw --updates 97 lint.ignore=[unreached]"),),
    "plan_warmups": (plan("warmup", WARMUPS, "schedule=cosine cooldown=linear data.batch_size=7 --updates 83"),),
    "plan_hyper_schedules": (
        plan("hyper_schedule", HYPERS, "optimizer=nesterov model.dropout=0.1 trainer.gradient_noise=0.1 --updates 50"),
    ),
    "plan_compat": (plan("compat", COMPATS, "optimizer=sgd schedule=cosine_warmup trainer.duration=3ep"),),
    "plan_scaling": (plan("scaling", SCALINGS, "scaling.base_batch_size=16 trainer.duration=3ep"),),
}  # fmt: skip
"""The commands of each case. What the last one leaves in outputs/run is hashed."""
