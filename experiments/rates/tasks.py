"""Tasks by which the rules of the range test and the tune are fitted, and fourteen that no rule has seen.

A task is a net, its data and an optimizer, as overrides of `cadence train --config-dir experiments/rates/conf`. Those
held out were chosen before any of them was trained, and differ from the others in their nets. Those in `USED` were held
out for rules before the present ones, fourteen and fourteen.
"""

from argparse import Namespace
from pathlib import Path

from omegaconf import DictConfig

from trainer.cli.compose import compose_config

CONF = Path(__file__).parent / "conf"
COMMON = (
    "allow=[experiments]", "model=own", "task.monitor=loss", "task.mode=min", "task.metrics={}", "logger=none",
    "callbacks=none", "trainer.accelerator=cpu", "trainer.threads=1",
)  # fmt: skip
NETS = "model._target_=experiments.rates.nets."


def on(data: str, net: str, *words: str, updates: int, kind: str = "classification") -> tuple[str, ...]:
    """The overrides of a task on `data` of samples.py; `net` is the call of a function or class of nets.py."""
    name, _, arguments = net.partition(" ")
    smoothing = ("task.loss.label_smoothing=0", "data.wrong=0.1") if kind == "classification" else ()
    own = [f"+model.{word}" for word in arguments.split()]
    length = f"trainer.duration={updates}"
    return (
        "data=samples",
        f"data.of={data}",
        f"task={kind}",
        f"{NETS}{name}",
        *own,
        *COMMON,
        *smoothing,
        length,
        *words,
    )


def on_text(net: str, *words: str, context: int = 32, updates: int = 800) -> tuple[str, ...]:
    """The overrides of a task on the characters of the folder $CADENCE_DATA; `net` is "gpt", or as in `on`."""
    text = ("data=text", "data.path=${oc.env:CADENCE_DATA}/tinyshakespeare/input.txt", "data.val_fraction=0.01")
    length = ("data.batch_size=16", f"data.context={context}", f"trainer.duration={updates}")
    name, _, arguments = net.partition(" ")
    common = [word for word in COMMON if name != "gpt" or word not in ("model=own", "allow=[experiments]")]
    model = ("model=gpt",) if name == "gpt" else (f"{NETS}{name}",)
    own = [f"{'' if name == 'gpt' else '+'}model.{word}" for word in arguments.split()]
    return ("task=language_modelling", *text, *common, *model, *own, *length, *words)


FITTED: dict[str, tuple[str, ...]] = {
    "mlp-adamw": on("digits", "perceptron sizes=[64,64,10]", "optimizer=adamw", updates=800),
    "mlp-momentum": on("digits", "perceptron sizes=[64,64,10]", "optimizer=momentum", updates=800),
    "mlp-sgd": on("digits", "perceptron sizes=[64,128,10]", "optimizer=sgd", "schedule=linear", updates=800),
    "mlp-lion": on("digits", "perceptron sizes=[64,128,128,10]", "optimizer=lion", updates=600),
    "mlp-adagrad": on("digits", "perceptron sizes=[64,64,10]", "optimizer=adagrad", "schedule=constant", updates=800),
    "linear-sgd": on("digits", "perceptron sizes=[64,10]", "optimizer=sgd", updates=800),
    "deep-tanh-adamw": on(
        "digits", "perceptron sizes=[64,48,48,48,48,48,48,10] activation=tanh", "optimizer=adamw", updates=800
    ),
    "deep-narrow-momentum": on(
        "digits",
        "perceptron sizes=[64,24,24,24,24,24,10]",
        "optimizer=momentum",
        "warmup=linear",
        "warmup.duration=5%",
        updates=800,
    ),
    "mlp-batchnorm-momentum": on("digits", "perceptron sizes=[64,64,10] norm=true", "optimizer=momentum", updates=800),
    "mlp-batchnorm-adam": on(
        "digits", "perceptron sizes=[64,64,64,10] norm=true", "optimizer=adam", "data.batch_size=64", updates=600
    ),
    "mlp-wide-batch-nesterov": on(
        "digits", "perceptron sizes=[64,128,10]", "optimizer=nesterov", "data.batch_size=256", updates=400
    ),
    "convolution-batchnorm-nesterov": on("bars", "convolution norm=batch", "optimizer=nesterov", updates=300),
    "convolution-batchnorm-adamw": on("bars", "convolution norm=batch width=8", "optimizer=adamw", updates=300),
    "teacher-adamw": on("teacher", "perceptron sizes=[16,64,1]", "optimizer=adamw", kind="regression", updates=800),
    "teacher-momentum": on(
        "teacher",
        "perceptron sizes=[16,64,64,1] activation=tanh",
        "optimizer=momentum",
        kind="regression",
        updates=800,
    ),
    "friedman-sgd": on("friedman", "perceptron sizes=[10,64,1]", "optimizer=sgd", kind="regression", updates=1000),
    "bag-adam": on("bags", "Bag", "optimizer=adam", updates=800),
    "bag-momentum": on("bags", "Bag width=32", "optimizer=momentum", updates=800),
    "codes-adamw": on("codes", "perceptron sizes=[64,32,8,32,64]", "optimizer=adamw", kind="regression", updates=1000),
    "rnn-text-adamw": on_text("Recurrent kind=RNN width=48 vocabulary=65", "optimizer=adamw", "model=own"),
    "lstm-text-momentum": on_text(
        "Recurrent kind=LSTM width=48 vocabulary=65", "optimizer=momentum", "trainer.clip=1.0", updates=600
    ),
    "gpt-32-adamw": on_text("gpt width=32 layers=2", "optimizer=adamw", "warmup=linear", "warmup.duration=10%"),
    "gpt-64-adamw": on_text("gpt width=64 layers=2", "optimizer=adamw", "warmup=linear", "warmup.duration=10%"),
    "gpt-96-adam": on_text("gpt width=96 layers=1", "optimizer=adam", "schedule=linear", updates=600),
    "gpt-32-lion": on_text("gpt width=32 layers=3", "optimizer=lion", updates=600),
    "gpt-64-momentum": on_text("gpt width=64 layers=1", "optimizer=momentum", "trainer.clip=1.0", updates=600),
    "encoder-last-32-adamw": on("rows", "Encoder width=32 layers=3 first=false", "optimizer=adamw", updates=500),
    "encoder-patches-32-adamw": on("bars", "Encoder width=32 layers=2 images=true", "optimizer=adamw", updates=300),
}
USED: dict[str, tuple[str, ...]] = {
    "gru-text-rmsprop": on_text("Recurrent kind=GRU width=40 vocabulary=65", "optimizer=rmsprop", updates=600),
    "lstm-rows-adam": on("rows", "Recurrent kind=LSTM width=32", "optimizer=adam", updates=500),
    "residual-nadam": on("digits", "Residual", "optimizer=nadam", updates=600),
    "residual-momentum": on("digits", "Residual width=32 blocks=2", "optimizer=momentum", updates=600),
    "factors-adamw": on("ratings", "Factors", "optimizer=adamw", kind="regression", updates=1000),
    "factors-sgd": on("ratings", "Factors width=16", "optimizer=sgd", kind="regression", updates=1000),
    "friedman-silu-adamw": on(
        "friedman", "perceptron sizes=[10,64,64,1] activation=silu", "optimizer=adamw", kind="regression", updates=800
    ),
    "convolution-groupnorm-adam": on("bars", "convolution norm=group", "optimizer=adam", updates=300),
    "rows-convolution-lion": on("rows", "along_rows", "optimizer=lion", updates=500),
    "deep-batchnorm-momentum": on(
        "digits",
        "perceptron sizes=[64,48,48,48,10] norm=true",
        "optimizer=momentum",
        "data.batch_size=16",
        updates=800,
    ),
    "decoder-last-48-adamw": on_text(
        "Decoder width=48 layers=2 places=24",
        "optimizer=adamw",
        "warmup=linear",
        "warmup.duration=5%",
        "model=own",
        context=24,
    ),
    "gpt-48-radam": on_text("gpt width=48 layers=3", "optimizer=radam", context=24, updates=600),
    "encoder-patches-64-adamw": on(
        "bars",
        "Encoder width=64 layers=1 images=true",
        "optimizer=adamw",
        "warmup=linear",
        "warmup.duration=10%",
        updates=300,
    ),
    "encoder-rows-48-nadam": on("rows", "Encoder width=48 layers=2", "optimizer=nadam", updates=500),
    "mixer-adamw": on("photographs", "Mixer", "optimizer=adamw", "warmup=linear", "warmup.duration=5%", updates=400),
    "dilated-nesterov": on("order", "Dilated", "optimizer=nesterov", updates=500),
    "sines-nadam": on(
        "photograph",
        "perceptron sizes=[48,48,48,1] activation=sine",
        "optimizer=nadam",
        kind="regression",
        updates=600,
    ),
    "graph-adamw": on("graphs", "GraphNet", "optimizer=adamw", "schedule=linear", updates=600),
    "elman-rmsprop": on("jumps", "Elman", "optimizer=rmsprop", "trainer.clip=1.0", updates=600),
    "mixture-batchnorm-adamax": on(
        "mixture", "perceptron sizes=[40,48,3] norm=true", "optimizer=adamax", kind="regression", updates=600
    ),
    "experts-adam": on("rings", "Experts", "optimizer=adam", "data.batch_size=64", updates=800),
    "sets-radam": on("sets", "DeepSet", "optimizer=radam", kind="regression", updates=800),
    "sound-momentum": on("tones", "sound", "optimizer=momentum", updates=500),
    "spirals-sgd": on("spirals", "perceptron sizes=[2,64,64,3] activation=tanh", "optimizer=sgd", updates=1000),
    "gpt-80-adamw": on_text(
        "gpt width=80 layers=2", "optimizer=adamw", "warmup=linear", "warmup.duration=5%", updates=600
    ),
    "gpt-56-radam": on_text("gpt width=56 layers=2", "optimizer=radam", "schedule=linear", context=24, updates=700),
    "decoder-last-64-adamw": on_text(
        "Decoder width=64 layers=2 places=32",
        "optimizer=adamw",
        "warmup=linear",
        "warmup.duration=10%",
        "model=own",
        updates=500,
    ),
    "encoder-rows-24-adam": on("rows", "Encoder width=24 layers=3", "optimizer=adam", updates=700),
}
HELD_OUT: dict[str, tuple[str, ...]] = {
    "lstm-waves-adam": on("waves", "Series", "optimizer=adam", kind="regression", updates=500),
    "gratings-nesterov": on("gratings", "group_norm", "optimizer=nesterov", updates=400),
    "gru-walks-nadam": on("walks", "Last", "optimizer=nadam", updates=500),
    "denoiser-adamw": on(
        "noisy_patches",
        "perceptron sizes=[192,96,24,96,192] activation=gelu",
        "optimizer=adamw",
        kind="regression",
        updates=500,
    ),
    "masked-momentum": on(
        "masked", "perceptron sizes=[64,64,64] activation=silu", "optimizer=momentum", kind="regression", updates=600
    ),
    "clouds-rmsprop": on("clouds", "perceptron sizes=[12,32,32,5] activation=gelu", "optimizer=rmsprop", updates=600),
    "siamese-adamw": on("pairs", "Siamese", "optimizer=adamw", updates=600),
    "cancer-sgd": on("cancer", "perceptron sizes=[30,32,32,2] activation=tanh", "optimizer=sgd", updates=400),
    "diabetes-adamax": on(
        "diabetes", "perceptron sizes=[10,48,48,1] activation=gelu", "optimizer=adamax", kind="regression", updates=400
    ),
    "residual-wide-lion": on("digits", "Residual width=48 blocks=3", "optimizer=lion", updates=500),
    "gpt-72-adamw": on_text(
        "gpt width=72 layers=1", "optimizer=adamw", "warmup=linear", "warmup.duration=10%", context=24, updates=500
    ),
    "gpt-40-nadam": on_text("gpt width=40 layers=2", "optimizer=nadam", "schedule=linear", context=24, updates=500),
    "encoder-rows-40-adamw": on(
        "rows",
        "Encoder width=40 layers=2",
        "optimizer=adamw",
        "warmup=linear",
        "warmup.duration=5%",
        updates=500,
    ),
    "encoder-last-patches-24-adam": on(
        "bars", "Encoder width=24 layers=2 first=false images=true", "optimizer=adam", updates=300
    ),
}
TASKS = FITTED | USED | HELD_OUT


def composed(name: str, *words: str) -> DictConfig:
    """The composed config of a task, with more overrides."""
    return compose_config([*TASKS[name], *words], Namespace(config_dir=CONF, config_name="train"))
