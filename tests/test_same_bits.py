"""The runs by which two versions are compared still compose; `same_bits.py` itself trains them."""

import pytest

from tests.same_bits_cases import CASES
from trainer.cli.compose import compose_config
from trainer.config.settings import settings_of

TRAINED = {f"{name} {i}": words for name, case in CASES.items() for i, (script, *words) in enumerate(case)
           if script == "train.py" and "-m" not in words}  # fmt: skip


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", TRAINED)
def test_the_config_of_a_run_composes(name):
    settings_of(compose_config([word for word in TRAINED[name] if not word.startswith("hydra.")]))
