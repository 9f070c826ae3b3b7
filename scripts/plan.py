"""Show the whole learning-rate curve of a run before training it: numbers, a sketch, a picture.

Takes every override that train.py takes, and imports no torch. Examples:

    python scripts/plan.py optimizer=sgd schedule=cosine_warmup trainer.duration=30ep --out outputs/plan
    python scripts/plan.py --applied outputs/NAME        what a finished run planned, and what it applied
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402

from trainer.assemble import curve  # noqa: E402
from trainer.assemble.front import guarded  # noqa: E402
from trainer.assemble.stamp import register  # noqa: E402
from trainer.lr import Plan, Refusal  # noqa: E402

BLUE, ORANGE = "#2a6f97", "#e07a1f"


def main() -> None:
    """Compose the config, plan the run, and show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py: optimizer=sgd schedule=cosine …")
    parser.add_argument("--out", type=Path, default=Path("outputs/plan"), help="stem of the .png and .json to write")
    parser.add_argument("--applied", type=Path, metavar="FOLDER", help="a run's folder: its plan, and what it applied")
    options = parser.parse_args()
    register()
    if options.applied and options.overrides:
        raise Refusal(f"--applied={options.applied} takes the config of that run: leave out {options.overrides[0]}.")
    plan = planned(recorded(options.applied) if options.applied else composed(options.overrides))
    log = applied(options.applied) if options.applied else {}
    print("\n".join(lines(plan)))
    print(f"\n{save(plan, options.out, log)}")


def composed(overrides: list[str]) -> DictConfig:
    """The config that train.py would see."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides)


def recorded(folder: Path) -> DictConfig:
    """The config of a run that has been started."""
    try:
        cfg = OmegaConf.load(folder / "config.yaml")
    except OSError as error:
        raise Refusal(f"--applied={folder} is not the folder of a run: it has no config.yaml.") from error
    assert isinstance(cfg, DictConfig)
    return cfg


def planned(cfg: DictConfig) -> Plan:
    """The plan of the run that a config describes."""
    curve.check_keys(cfg)
    length = curve.horizon(cfg, curve.trainer_settings(cfg))
    return Plan(curve.policy(cfg, length), length)


def applied(folder: Path) -> dict[str, list[Any]]:
    """What the log of a run holds of its learning rate (the first group's) and its loss, update by update."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    rates = [tag for tag in events.Tags()["scalars"] if tag.startswith("lr/")]
    if not rates:
        raise Refusal(f"--applied={folder} holds no log of a learning rate: was it trained with logger=tensorboard?")
    return {"lr": events.Scalars(rates[0]), "loss": events.Scalars("train/loss")}


def lines(plan: Plan) -> list[str]:
    """The curve for a terminal: its sketch, then its factors at the updates that matter."""
    facts, policy, sketch = plan.facts(), plan.policy, plan.sketch()
    head = [f"{facts['peak_lr'] if i == 0 else '':>10.4} │{line}" for i, line in enumerate(sketch)]
    ground = f"{'0':>10} └{'─' * max(map(len, sketch))}"
    rows = [
        f"{t:>10}  {policy.lr(t):>12.6g}  " + "  ".join(f"{value:>10.6g}" for value in policy.explain(t).values())
        for t in plan.landmarks()
    ]
    names = "  ".join(f"{name:>10}" for name in policy.explain(0))
    epoch = f", {facts['updates_per_epoch']} an epoch" if facts["updates_per_epoch"] else ""
    return [
        f"T = {facts['total_updates']} updates of {plan.horizon.batch_size} samples{epoch}; "
        f"warm-up W = {facts['warmup_updates']}; peak {facts['peak_lr']:g} at update {facts['peak_update']}",
        *["", *head, ground, ""],
        f"{'update':>10}  {'lr':>12}  {names}",
        *rows,
    ]


def save(plan: Plan, stem: Path, log: dict[str, list[Any]]) -> str:
    """Write the curve as a picture and as numbers; where they are."""
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        draw(plan, log).savefig(f"{stem}.png", dpi=120)
        numbers = json.dumps({**plan.facts(), "lr": plan.curve})
        Path(f"{stem}.json").write_text(numbers + "\n", encoding="utf-8")
    except OSError as error:
        raise Refusal(f"--out={stem} cannot be written ({error.strerror}): name another place.") from error
    return f"{stem}.png  {stem}.json"


def draw(plan: Plan, log: dict[str, list[Any]]) -> Any:
    """The planned curve; with a run's log, what was applied on it and the loss below it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.4 if log else 3.6))
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 if log else 1, 1, sharex=True, squeeze=False)[:, 0]
    rate, width = panels[0], plan.policy.warmup.updates
    if width:
        rate.axvspan(0, width - 1, color=BLUE, alpha=0.08)
        rate.annotate(f" warm-up, W = {width}", (width, 0), color=BLUE, va="bottom")
    rate.plot(range(len(plan.curve)), plan.curve, color=BLUE, linewidth=2, label="planned")
    rate.set(ylabel="learning rate", ylim=(0, None), xlim=(0, len(plan.curve)))
    if log:
        some = log["lr"][:: max(1, len(log["lr"]) // 48)]
        rate.plot([p.step for p in some], [p.value for p in some], "o", color=ORANGE, ms=4, label="applied")
        rate.legend(frameon=False)
        panels[1].plot([p.step for p in log["loss"]], [p.value for p in log["loss"]], color=ORANGE, linewidth=0.8)
        panels[1].set(ylabel="training loss", ylim=(0, None))
    panels[-1].set_xlabel("update")
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    figure.subplots_adjust(left=0.1, right=0.98, top=0.97, bottom=0.1 if log else 0.14, hspace=0.12)
    return figure


if __name__ == "__main__":
    sys.exit(guarded(main))
