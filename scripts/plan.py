"""Show the whole learning-rate curve of a run before training it: numbers, a sketch, a picture.

Takes every override that train.py takes, and imports no torch. Example:

    python scripts/plan.py optimizer=sgd schedule=cosine_warmup trainer.duration=30ep --out outputs/plan
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hydra import compose, initialize_config_dir  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from trainer.assemble import curve  # noqa: E402
from trainer.assemble.front import guarded  # noqa: E402
from trainer.assemble.stamp import register  # noqa: E402
from trainer.lr import Plan, Refusal  # noqa: E402


def main() -> None:
    """Compose the config, plan the run, and show it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py: optimizer=sgd schedule=cosine …")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "plan", help="stem of the .png and .json")
    options = parser.parse_args()
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", options.overrides)
    plan = planned(cfg)
    print("\n".join(lines(plan)))
    print(f"\n{save(plan, options.out)}")


def planned(cfg: DictConfig) -> Plan:
    """The plan of the run that a config describes."""
    curve.check_keys(cfg)
    length = curve.horizon(cfg, curve.trainer_settings(cfg))
    return Plan(curve.policy(cfg, length), length)


def lines(plan: Plan) -> list[str]:
    """The curve for a terminal: its sketch, then its factors at the updates that matter."""
    facts, policy = plan.facts(), plan.policy
    sketch = plan.sketch()
    head = [f"{'peak' if i == 0 else '':>10} │{line}" for i, line in enumerate(sketch)]
    ground = f"{'0':>10} └{'─' * max(map(len, sketch))}"
    rows = [
        f"{t:>10}  {policy.lr(t):>12.6g}  " + "  ".join(f"{value:>9.6g}" for value in policy.explain(t).values())
        for t in plan.landmarks()
    ]
    names = "  ".join(f"{name:>9}" for name in policy.explain(0))
    epoch = f", {facts['updates_per_epoch']} an epoch" if facts["updates_per_epoch"] else ""
    return [
        f"T = {facts['total_updates']} updates of {plan.horizon.batch_size} samples{epoch}; "
        f"warm-up W = {facts['warmup_updates']}; peak {facts['peak_lr']:g} at update {facts['peak_update']}",
        *["", *head, ground, ""],
        f"{'update':>10}  {'lr':>12}  {names}",
        *rows,
    ]


def save(plan: Plan, stem: Path) -> str:
    """Write the curve as a picture and as numbers; where they are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(range(len(plan.curve)), plan.curve, color="#2a6f97", linewidth=2)
    if plan.policy.warmup.updates:
        axes.axvspan(0, plan.policy.warmup.updates - 1, color="#2a6f97", alpha=0.1, label="warm-up")
        axes.legend(frameon=False)
    axes.set(xlabel="update", ylabel="learning rate", ylim=(0, None), xlim=(0, len(plan.curve)))
    axes.spines[["top", "right"]].set_visible(False)
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(f"{stem}.png", dpi=150)
        numbers = {**plan.facts(), "lr": plan.curve}
        Path(f"{stem}.json").write_text(json.dumps(numbers) + "\n", encoding="utf-8")
    except OSError as error:
        raise Refusal(f"--out={stem} cannot be written ({error.strerror}): name another place.") from error
    return f"{stem}.png  {stem}.json"


if __name__ == "__main__":
    sys.exit(guarded(main))
