"""What the gallery shows beside the bare options: settings that show a curve well in 400 updates, and combinations.

Every example is a list of overrides that works as it stands.
"""

from typing import NamedTuple

POINTS = "schedule.points=[[0, 0.2], [20%, 1.0], [60%, 0.4], [90%, 0.1]]"

SCHEDULES = {
    "chebyshev": ["schedule.condition=0.2"],
    "constant_until": ["schedule.until=30%"],
    "cosine": ["schedule.floor=0.1"],
    "cosine_warmup": ["warmup.duration=15%"],
    "exp_range": ["schedule.gamma=0.995"],
    "exponential": ["schedule.gamma=0.99", "schedule.floor=0.1"],
    "exponential_decay": ["schedule.every=15%", "schedule.staircase=true"],
    "function": ["schedule.of._target_=curves.ripples", "allow=[curves]"],
    "hard_restarts": ["schedule.floor=0.1"],
    "inverse_sqrt": ["warmup=linear", "warmup.duration=10%"],
    "linear": ["schedule.floor=0.1"],
    "linear_rate": ["schedule.rate=1.5"],
    "linear_warmup": ["warmup.duration=15%"],
    "multi_step": ["schedule.gamma=0.3"],
    "natural_exponential": ["schedule.rate=0.02"],
    "noisy": ["schedule.limit=0.2", "schedule.start=25%"],
    "one_cycle_three_phase": ["schedule.rise=40%"],
    "piecewise_constant": [POINTS],
    "piecewise_cosine": [POINTS],
    "piecewise_linear": [POINTS],
    "polynomial": ["schedule.power=3", "schedule.floor=0.1"],
    "power_law": ["schedule.power=1.5"],
    "repeat": ["schedule.cycles=3", "schedule.length_mult=1.5", "schedule.peak_mult=0.7"],
    "restarts": ["schedule.first=14.5%", "schedule.peak_mult=0.8"],
    "step": ["schedule.every=20%", "schedule.gamma=0.5"],
    "stretch": ["schedule.of={schedule: step, every: 50, gamma: 0.5}", "schedule.ratio=2"],
    "table": ["schedule.path=curve.csv", "schedule.interpolation=linear"],
    "wsd": ["warmup=linear"],
}
WARMUPS = {
    "auto": ["scaling=linear", "scaling.base_batch_size=16", "data.batch_size=64", "optimizer.betas=[0.9, 0.95]"],
    "constant": ["warmup.factor=0.1"],
    "radam": ["optimizer.betas=[0.9, 0.98]"],
    "saturating": ["warmup.tau=8%"],
    "untuned_exponential": ["optimizer.betas=[0.9, 0.98]"],
    "untuned_linear": ["optimizer.betas=[0.9, 0.98]"],
}
HYPERS = {
    "dropout_linear": ["model.dropout=0.2"],
    "gradient_noise_annealed": ["trainer.gradient_noise=0.01"],
    "label_smoothing_linear": ["task.loss.label_smoothing=0.1"],
    "momentum_coupled": ["schedule=cosine_warmup", "schedule.floor=0.05", "warmup.duration=20%"],
    "momentum_mirrored": ["schedule=one_cycle"],
    "weight_decay_tied": ["warmup.duration=20%"],
}
FILES = {
    "curve.csv": "t,value\n0,0.4\n60,1.0\n200,0.6\n260,0.8\n340,0.1\n",
    "curves.py": '"""Curves of my own."""\n\nfrom math import cos, exp\n\n\ndef ripples(t: int) -> float:\n'
    '    """A share of the peak."""\n    return exp(-t / 150) * (0.75 + 0.25 * cos(t / 12))\n',
}
"""Files that an example reads; the page shows them."""
READS = {"table": "curve.csv", "function": "curves.py"}


class Combination(NamedTuple):
    """Several options in one policy: a title, what it shows, and the words for the command line."""

    name: str
    title: str
    note: str
    words: list[str]


RISE = ["warmup=linear", "warmup.duration=25%"]
COMBINATIONS = [
    Combination("prefix", "Prefix", "The warm-up comes first, and the schedule has the rest of the run: the default.",
        ["schedule=cosine", *RISE, "warmup_mode=prefix"]),
    Combination("overlay", "Overlay", "The schedule spans the whole run, and the warm-up multiplies it.",
        ["schedule=cosine", *RISE, "warmup_mode=overlay"]),
    Combination("replace", "Replace", "The schedule spans the whole run, and the warm-up is laid over its beginning.",
        ["schedule=cosine", *RISE, "warmup_mode=replace"]),
    Combination("cooldown_inverse_sqrt", "Cooldown onto an inverse square root",
        "A curve without an end of its own, and a decay over the last fifth, from wherever it is.",
        ["schedule=inverse_sqrt", "warmup=linear", "warmup.duration=10%", "cooldown=1-sqrt"]),
    Combination("cooldown_cycles", "Cooldown onto cycles", "It begins where the cycles are, and they end.",
        ["schedule=cosine_cyclic", "schedule.floor=0.4", "schedule.cycles=5", "cooldown=linear",
         "cooldown.duration=30%"]),
    Combination("sequence", "Sequence", "One schedule after another, each with its length and its height.",
        ["schedule=sequence", "schedule.parts=[{of: {schedule: linear, floor: 0.5}, duration: 30%}, "
         "{of: constant, duration: 30%, scale: 0.5}, {of: cosine, scale: 0.5}]"]),
    Combination("product", "Product", "Triangles under a cosine.",
        ["schedule=product", "schedule.factors=[cosine, {schedule: triangular, floor: 0.3, cycles: 8}]"]),
    Combination("repeat", "Repeat", "Any schedule as a cycle: here a plateau with a decay, lower each time.",
        ["schedule=repeat", "schedule.of={schedule: wsd, decay: 40%, floor: 0.1}", "schedule.cycles=4",
         "schedule.peak_mult=0.75"]),
    Combination("stretch", "Stretch", "Steps that were counted in updates, for a run that is 2.5 times as long.",
        ["schedule=stretch", "schedule.of={schedule: step, every: 60, gamma: 0.6}",
         "schedule.ratio=2.5"]),
    Combination("noisy", "Noise on a part", "From an update on, bounded, and the same each time for one seed.",
        ["schedule=noisy", "schedule.of={schedule: wsd, floor: 0.1}", "schedule.kind=uniform", "schedule.limit=0.1",
         "schedule.start=30%"]),
    Combination("nested", "To any depth", "A sequence whose second part repeats a product.",
        ["schedule=sequence", "warmup=cosine", "warmup.duration=10%",
         "schedule.parts=[{of: constant, duration: 40%}, {of: {schedule: repeat, cycles: 3, peak_mult: 0.7, "
         "of: {schedule: product, factors: [linear, {schedule: step, every: 50%, gamma: 0.6}]}}}]"]),
    Combination("group", "A parameter group with its own",
        "The rate of the weights falls (blue), that of biases and norms stays at the peak (orange).",
        ["schedule=cosine_warmup", "warmup.duration=15%", "+group_schedule.no_decay={schedule: constant}"]),
]  # fmt: skip
