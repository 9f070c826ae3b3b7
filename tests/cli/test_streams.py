"""What stdout prints where its encoding lacks a character."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from trainer.cli.streams import replace_unknown_characters
replace_unknown_characters()
print("κ = 2, √κ, 0.1 → 0.2, ∑lr·λ, 3 ± 1 …")
print("0.1 │ ▁▄█▆")
print("  0 └───")
print("ü, 語")
"""


@pytest.mark.parametrize(
    ("encoding", "lines"),
    [
        ("utf-8", ["κ = 2, √κ, 0.1 → 0.2, ∑lr·λ, 3 ± 1 …", "0.1 │ ▁▄█▆", "  0 └───", "ü, 語"]),
        ("latin-1", ["kappa = 2, sqrt kappa, 0.1 -> 0.2, sum lr·lambda, 3 ± 1 ...", "0.1 | .###", "  0 +---", "ü, ?"]),
        ("ascii", ["kappa = 2, sqrt kappa, 0.1 -> 0.2, sum lr*lambda, 3 +- 1 ...", "0.1 | .###", "  0 +---", "?, ?"]),
    ],
)
def test_a_character_that_the_encoding_lacks_is_printed_by_its_name(encoding, lines):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    printed = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, check=True).stdout
    assert printed.decode(encoding).splitlines() == lines
