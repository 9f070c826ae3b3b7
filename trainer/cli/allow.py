"""Which packages the user allows a config to name: only the command line and `CADENCE_ALLOW` say so.

A file of the config may come from somebody else, and so may the folder of a run: what they allow does not count.
"""

import os
import re
import sys
from collections.abc import Iterable, Sequence

from trainer.cli.override import key_of
from trainer.lr import ConfigError

VARIABLE = "CADENCE_ALLOW"
"""Names of packages, with commas between them, that every command of a shell may call."""
RUNS_CODE = frozenset(
    "asteval billiard cadence cffi cloudpickle Cython dask dill distributed docker execnet fabric fire fsspec git "
    "hydra hydra_plugins invoke ipdb ipykernel IPython jinja2 joblib jsonpickle jupyter lightning_fabric "
    "lightning_utilities mako multiprocess nbformat notebook numba numexpr omegaconf pandas paramiko pathos pexpect "
    "pip pkg_resources plumbum ppft psutil ptyprocess py pytest pyximport ray setuptools sh submitit sympy torchgen "
    "tornado trainer virtualenv wheel xonsh yaml zmq".split()
)
"""Packages outside the standard library with functions that run what they are given, or load a pickle."""
PARTS = {
    "numpy": ("numpy.random", "numpy.linalg", "numpy.fft"),
    "torch": ("torch.nn", "torch.optim", "torch.utils.data", "torch.distributions", "torch.fft", "torch.linalg"),
}
"""Packages of which only parts may be allowed: the rest has functions of that kind."""


def never_allowed(name: str) -> bool:
    """Whether this package or module must not be allowed, whoever asks for it."""
    root = name.partition(".")[0]
    if root in PARTS:
        return not any(f"{name}.".startswith(f"{part}.") for part in PARTS[root])
    return root in RUNS_CODE or (root in sys.stdlib_module_names and root != "__main__")


def check_names(names: Iterable[str], source: str) -> None:
    """Refuse names of packages that a config must not call, and what is no name."""
    for name in names:
        if not all(map(str.isidentifier, name.split("."))):
            raise ConfigError(f"{source}={name} is not the name of a package: write it as Python imports it.")
        if never_allowed(name):
            parts = PARTS.get(name.partition(".")[0])
            advice = f"name a part of it, as {', '.join(parts)}" if parts else "write a function of your own"
            raise ConfigError(f"{source}={name}: its functions run whatever a config gives them: {advice}.")


def allowed_by_environment() -> list[str]:
    """The packages that `CADENCE_ALLOW` names."""
    names = [name for name in re.split(r"[,\s]+", os.environ.get(VARIABLE, "")) if name]
    check_names(names, VARIABLE)
    return names


def check_source(allow: Sequence[str], words: Sequence[str]) -> None:
    """Refuse packages in `allow` of a composed config that the words of the command do not name.

    Raises:
        ConfigError: they come from a file of the config.
    """
    given = [word.partition("=")[2] for word in words if key_of(word) == "allow"]
    typed = {*re.findall(r"[\w.]+", " ".join(given)), *allowed_by_environment()}
    if foreign := [name for name in allow if name not in typed]:
        raise ConfigError(
            f"allow=[{','.join(foreign)}] stands in a file of the config, which others may have written: give it on "
            f"the command line, or by {VARIABLE}={','.join(foreign)} in your shell."
        )
