"""Cross-validation by the commands of the example's README."""

import os
import re

import pytest

from tests.distributed import worlds
from tests.examples.projects import QUIET, Example
from trainer.tools.report.build import build_report
from trainer.tools.report.command import format_summary
from trainer.tools.report.runs import find_runs
from trainer.tools.report.study import Study


@pytest.mark.sample(0)
def test_the_report_gives_the_mean_of_five_folds_with_its_interval(tmp_path):
    example = Example("k_fold", "val/f1/1", 0.7)
    (_, _, *words), (*_, named) = example.commands
    assert named == "outputs/k_fold"
    place = (f"hydra.sweep.dir={tmp_path}/k_fold", "hydra.launcher.fork=true", "trainer.validate=5ep")
    driver = worlds.Script(worlds.ROOT / "train.py", [*words, *QUIET[:3], *place], example.folder, dict(os.environ))
    _, err = driver.communicate()
    assert driver.returncode == 0, err
    report = build_report(Study(find_runs(tmp_path / "k_fold"), None, None), tmp_path, 0.05)
    found = re.search(r"f1/1 (.*) ± .* over 5 folds, 95 % interval (.*) to (.*):", "\n".join(format_summary(report)))
    assert found, format_summary(report)
    mean, low, high = map(float, found.groups())
    assert 0.7 < low < mean < high < 0.95
