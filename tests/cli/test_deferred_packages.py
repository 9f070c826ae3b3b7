"""Lightning starts without what torchmetrics imports for seldom used metrics; every metric is there all the same."""

import os
import subprocess
import sys

import pytest

LIGHT = """
import sys, trainer, pytorch_lightning
from torchmetrics.classification import MulticlassAccuracy
assert not {"scipy", "transformers", "matplotlib"} & sys.modules.keys(), "imported too early"
"""
ALL = """
import torchmetrics, torchmetrics.functional
from torchmetrics import Accuracy, Metric, MetricCollection, SumMetric
from torchmetrics.functional import accuracy, perplexity
from torchmetrics.text import Perplexity
assert torchmetrics.classification.MulticlassAccuracy is MulticlassAccuracy
assert issubclass(MulticlassAccuracy, Metric)
assert Metric is torchmetrics.metric.Metric
assert isinstance(MetricCollection([SumMetric()]), torchmetrics.MetricCollection)
assert type(torchmetrics).__name__ == type(torchmetrics.functional).__name__ == "module"
"""


@pytest.mark.sample(1)
@pytest.mark.parametrize("code", [LIGHT, LIGHT + ALL], ids=["a start", "all of torchmetrics after it"])
def test_torchmetrics_runs_its_own_code_only_when_it_is_asked_for(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.sample(0)
def test_metrics_draw_with_matplotlib_and_know_its_axes():
    code = """
import trainer, pytorch_lightning, sys, torch
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryConfusionMatrix
assert "matplotlib" not in sys.modules
matrix = BinaryConfusionMatrix()
matrix.update(torch.tensor([0.2, 0.9]), torch.tensor([0, 1]))
_, axes = matrix.plot()
assert type(axes).__module__.startswith("matplotlib"), axes
both = MetricCollection([BinaryAccuracy()])
both.update(torch.tensor([0.2, 0.9]), torch.tensor([0, 1]))
both.plot(ax=axes, together=True)
try:
    both.plot(ax=3, together=True)
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"MPLBACKEND": "agg"}
    )
    assert "matplotlib axis object" in done.stdout, done.stderr


@pytest.mark.sample(0)
def test_a_name_that_torchmetrics_does_not_have_is_an_attribute_error():
    code = "import trainer, torchmetrics\ntry: torchmetrics.nothing\nexcept AttributeError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "'torchmetrics' has no attribute 'nothing'" in done.stdout, done.stderr


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "code",
    [
        "from torchmetrics.classification import MulticlassAccuracy",
        "from torchmetrics.metric import Metric",
        "from torchmetrics.functional.classification import accuracy",
        "from torchmetrics import *; Accuracy, functional.accuracy",
    ],
)
def test_torchmetrics_can_be_imported_before_lightning(code):
    done = subprocess.run([sys.executable, "-c", f"import trainer\n{code}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_code_of_torchmetrics_that_fails_says_why_each_time(tmp_path):
    package = tmp_path / "torchmetrics"
    for name, text in (("__init__", "import nonesuch"), ("utilities", "")):
        package.mkdir(exist_ok=True)
        (package / f"{name}.py").write_text(text)
    code = (
        "import trainer, torchmetrics\nfor _ in range(2):\n"
        "    try: torchmetrics.Accuracy\n    except ImportError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": f"{tmp_path}:."}
    )
    assert done.stdout.count("torchmetrics cannot be imported: No module named 'nonesuch'") == 2, done.stderr
