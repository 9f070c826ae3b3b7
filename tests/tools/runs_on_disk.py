"""Folders of runs as training leaves them, and what a report says of them: for the tests of the report."""

import json
import re
from math import log10

import yaml

from trainer.log.eventfile import EventFile, float32
from trainer.tools.report import findings
from trainer.tools.report.build import build_report
from trainer.tools.report.page import page
from trainer.tools.report.response import rate_curves
from trainer.tools.report.runs import find_runs
from trainer.tools.report.study import Study


def write_run(folder, overrides, metrics=None, status="completed", events=True, batch=None, **config):
    """A run's folder, as `train.py` leaves it."""
    folder.mkdir(parents=True)
    flat = {"optimizer": {"lr": 0.1, "momentum": 0.9}, "data": {"batch_size": 32}, "seed": 0, "name": folder.name}
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        room, dot, name = key.partition(".")
        value = yaml.safe_load(value) if value[:1] != "'" else value
        if dot:
            flat[room] = {**flat.get(room, {}), name: value}
        elif key == "seed":
            flat[key] = value
    (folder / "config.yaml").write_text(yaml.safe_dump({**flat, **config}))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    plan = {"total_updates": 40, "global_batch": batch or flat["data"]["batch_size"], "scaling": "none"}
    (folder / "plan.json").write_text(json.dumps(plan))
    best = {"metric": "val/loss", "value": None, "update": 40}
    done = {"updates": 40, "total_updates": 40, "seconds": 1.5, "folder": f"/elsewhere/{folder.name}"}
    result = {"status": status, "metrics": metrics or {}, "best": best, **done}
    (folder / "result.json").write_text(json.dumps(result))
    if events:
        log = EventFile(folder)
        for t in range(40):
            log.write_scalars(("train/loss", "lr/decay"), t, 0.0, float32([2 - t / 40, 0.1]))
        log.write_scalars(("val/loss",), 39, 0.0, float32([1.0]))
        log.close()
    return folder


def loss(lr, seed=0, shift=0.0):
    return 0.5 + 0.2 * (log10(lr) + 1) ** 2 + 0.004 * seed + shift


def write_sweep(root, rates=(0.01, 0.03, 0.1, 0.3, 1.0), schedules=("cosine", "linear"), seeds=(0, 1), more=()):
    """A sweep over rates, schedules and seeds."""
    numbers = iter(range(1000))
    for lr in rates:
        for schedule in schedules:
            for seed in seeds:
                words = [f"optimizer.lr={lr}", f"schedule={schedule}", f"seed={seed}", *more]
                value = loss(lr, seed, 0.01 * (schedule == "linear"))
                write_run(root / str(next(numbers)), words, {"val/loss": value, "val/accuracy": 1 - value / 2})
    return root


def page_of(folder, metric=None, out=None, library="// plotly"):
    study = Study(find_runs(folder), metric)
    return page(build_report(study, folder, 0.05), out or folder / "report", library)


def all_findings(folder):
    study = Study(find_runs(folder))
    return findings.find_all(study, rate_curves(study))


def curves_of(run):
    """The curves of a run on the page, by the title of their axis."""
    titles = {
        key[0] + key[5:]: axis["title"]["text"] for key, axis in run["curves"]["layout"].items() if "yaxis" in key
    }
    return {titles[trace["yaxis"]]: [trace["x"], trace["y"]] for trace in run["curves"]["data"]}


def sections(html):
    return set(re.findall(r'<section id="([a-z-]+)"', html))


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)[1])
