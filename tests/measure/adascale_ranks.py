"""Trains with AdaScale and the live noise scale on two processes, whole and resumed, and notes what came of it.

Started by test_adascale.py, in its process or in those of a world.
"""

import json
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from tests.distributed.ranks import ROOT, fingerprint
from trainer.checkpoint.io import checkpoints_in
from trainer.cli.hydra_internals import VERSION_BASE
from trainer.cli.run_id import register_run_id
from trainer.run import assemble, fit

WORDS = (
    *("data=digits", "model.hidden=[16]", "optimizer=momentum", "schedule=cosine", "warmup=none"),
    *("scaling=adascale", "scaling.base_batch_size=16", "trainer.duration=60", "trainer.validate=8", "name=x"),
    *("trainer.steps_per_execution=5", "measure=noise", "measure.noise=0.9", "logger=none", "callbacks=none"),
    *("trainer.accelerator=cpu", "trainer.threads=1", "trainer.checkpoint=7", "trainer.keep=0"),
)


def train(folder: Path, *overrides: str, resumed: Path | None = None) -> dict[str, Any]:
    """A run, from the start or from a checkpoint: how many updates, and a fingerprint of the weights at the end."""
    register_run_id()
    GlobalHydra.instance().clear()
    going_on = [f"resume.path={resumed}"] if resumed else []
    with initialize_config_dir(str(ROOT / "conf"), **VERSION_BASE):
        assembly = assemble(compose("train", [*WORDS, *overrides, *going_on]), folder, resumed)
    fit(assembly)
    module = assembly.module
    noise = module.observers.noise
    assert noise is not None
    return {
        "updates": module.clock.t,
        "tau": module.clock.tau,
        "noise": [number for one in noise.scale.estimates() for number in (one.square, one.trace)],
        "weights": fingerprint(list(module.net.parameters())),
    }


def as_rank(rank: int, target: Path) -> None:
    """A whole run and a resumed one, as one of two processes."""
    two = ("data.batch_size=16", "trainer.devices=2", "trainer.accumulate=2")
    whole = train(target / "whole", *two)
    points = checkpoints_in(target / "whole" / "checkpoints")
    told = [whole, train(target / "resumed", *two, resumed=points[1])]
    (target / f"rank{rank}.json").write_text(json.dumps(told))
