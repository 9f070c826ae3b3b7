"""Runs `train.py` with the words of the command, and counts calls of product code by a profile hook, as JSON.

Beside the `calls` the JSON has `way`: the files of ours that were running when the learning rate was written. Left out
is what the last line of a run asks, whose curve is that of another, longer run.

python tests/config/counted.py COUNTS.json optimizer=sgd …
"""

import json
import runpy
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
COUNTED = {
    "settings_of": "trainer/config/settings.py",
    "tuned_hyperparameters": "trainer/config/tuned_hyperparameters.py",
    "scaled_numbers": "trainer/config/batch_scaling.py",
    "lr_policy": "trainer/config/lr_policy.py",
    "_plan": "trainer/config/resolve.py",
    "Plan.__post_init__": "trainer/lr/plan.py",
    "read": "trainer/checkpoint/io.py",
    "load": "torch/serialization.py",
}
"""Functions, and the ends of the paths of their files. Those that read a file are counted by its run and its name."""


def main(out: Path, words: list[str]) -> None:
    """Train, and leave the counts; imports are made before, for the hook would slow them down."""
    import trainer.run  # noqa: F401

    counts: Counter[str] = Counter()
    way: list[str] = []
    asking = False

    def hook(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal asking
        code = frame.f_code
        if code.co_qualname == "policy_of_longer":
            asking = event == "call"
        if asking:
            return
        if event == "call" and code.co_qualname == "LRControl.write" and not way:
            way.extend(running(frame))
        if event == "call" and code.co_filename.endswith(COUNTED.get(code.co_qualname, "none")):
            path = frame.f_locals.get("path" if code.co_name == "read" else "f")
            name = f" {Path(path).parent.parent.name}/{Path(path).name}" if isinstance(path, str | Path) else ""
            counts[f"{code.co_qualname}{name}"] += 1

    sys.argv = ["train.py", *words]
    threading.setprofile(hook)
    sys.setprofile(hook)
    try:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    finally:
        sys.setprofile(None)
        out.write_text(json.dumps({"calls": counts, "way": way}))


def running(frame: FrameType | None) -> list[str]:
    """The files of this checkout that a frame was called through, the outermost first, and its own."""
    found: list[str] = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and path != Path(__file__) and "site-packages" not in path.parts:
            found.append(str(path.relative_to(ROOT)))
        frame = frame.f_back
    return list(dict.fromkeys(reversed(found)))


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    main(Path(sys.argv[1]), sys.argv[2:])
