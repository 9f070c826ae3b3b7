"""Lightning starts without what torchmetrics imports for seldom used metrics; every metric is there all the same."""

import subprocess
import sys

import pytest

LIGHT = """
import sys, trainer, pytorch_lightning
from torchmetrics.classification import MulticlassAccuracy
assert not {"scipy", "transformers"} & sys.modules.keys(), "imported too early"
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


@pytest.mark.parametrize("code", [LIGHT, LIGHT + ALL], ids=["a start", "all of torchmetrics after it"])
def test_torchmetrics_runs_its_own_code_only_when_it_is_asked_for(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_name_that_torchmetrics_does_not_have_is_an_attribute_error():
    code = "import trainer, torchmetrics\ntry: torchmetrics.nothing\nexcept AttributeError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "'torchmetrics' has no attribute 'nothing'" in done.stdout, done.stderr
