"""A trained net as a file for other programs.

| file | what it holds | needs, to be loaded |
| --- | --- | --- |
| NAME.pt, NAME.pth | the state_dict of the net | torch, and the code of the net |
| NAME.safetensors | the same, readable without running code | safetensors, and the code of the net |
| NAME.pt2 | the net as a program of `torch.export` | torch |
| NAME.onnx | the net as an ONNX graph | any ONNX runtime |

A program and a graph take batches of any size. Both are loaded again and compared with the net before the file counts
as written: on the sample, and on its first two thirds.
"""

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from trainer.cli.extras import needed
from trainer.lr import ConfigError
from trainer.tools.writable import write_new_file

STATES = (".pt", ".pth", ".safetensors")
FORMATS = (*STATES, ".pt2", ".onnx")
TOLERANCE = {".pt2": 1e-5, ".onnx": 1e-3}
"""The largest difference from the net that is accepted, as a share of the largest output: kernels may be fused."""


def is_state(path: Path) -> bool:
    """Whether the file will hold the weights alone, for which no inputs are needed."""
    return path.suffix in STATES


def export(net: nn.Module, inputs: Any, path: Path) -> None:
    """Write the net in the format of the suffix, first beside the file, and under its name when it is verified.

    Args:
        net: in evaluation mode.
        inputs: a batch of its inputs, for programs: a tensor, a tuple of arguments, or a mapping of named ones. A
            mapping has what `net.forward` takes by name, beside more, such as targets; one with other names is one
            argument.
        path: what `check_new_file` has accepted.

    Raises:
        ConfigError: the net cannot be exported in this format, or gives other outputs there.
    """
    if isinstance(inputs, Mapping) and not _takes_by_name(net, inputs):
        known = {name: part for name, part in inputs.items() if name in inspect.signature(net.forward).parameters}
        inputs = known if known and _takes_by_name(net, known) else (inputs,)
    write_new_file(path, partial(_WRITERS[path.suffix], net, inputs))


def _takes_by_name(net: nn.Module, inputs: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(net.forward).bind(**inputs)
    except TypeError:
        return False
    return True


def _write_state(net: nn.Module, inputs: Any, path: Path) -> None:
    torch.save({name: value.detach().cpu().clone() for name, value in net.state_dict().items()}, path)


def _write_safetensors(net: nn.Module, inputs: Any, path: Path) -> None:
    needed("safetensors.torch", "an export to .safetensors").save_model(net, str(path))


def _write_program(net: nn.Module, inputs: Any, path: Path) -> None:
    arguments, named = _arguments(inputs)
    with torch.no_grad():
        made = _refused(".pt2", lambda: torch.export.export(net, arguments, named, dynamic_shapes=_dynamic(inputs)))
    torch.export.save(made, path)
    program = torch.export.load(path).module()
    _verify(net, program, inputs, path.suffix)


def _write_onnx(net: nn.Module, inputs: Any, path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        needed(package, "an export to .onnx")
    runtime = needed("onnxruntime", "an export to .onnx, which is verified,")
    arguments, named = _arguments(inputs)
    with _quiet():
        made = _refused(
            ".onnx",
            lambda: torch.onnx.export(
                net, (*arguments, named), dynamic_shapes=_dynamic(inputs), dynamo=True, verbose=False
            ),
        )
    made.save(str(path))
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*given: Any, **by_name: Any) -> list[Tensor]:
        leaves = [leaf.cpu().numpy() for leaf in tree_leaves((given, by_name)) if isinstance(leaf, Tensor)]
        return [torch.from_numpy(one) for one in session.run(None, dict(zip(names, leaves, strict=True)))]

    _verify(net, run, inputs, path.suffix)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of its own parts while it traces, such as that torchvision is not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


_WRITERS: dict[str, Callable[[nn.Module, Any, Path], None]] = {
    ".pt": _write_state,
    ".pth": _write_state,
    ".safetensors": _write_safetensors,
    ".pt2": _write_program,
    ".onnx": _write_onnx,
}


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments of the net."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def _dynamic(inputs: Any) -> Any:
    """The first dimension of each tensor may vary."""
    arguments, named = _arguments(inputs)
    auto = torch.export.Dim.AUTO
    of = tree_map(lambda leaf: {0: auto} if isinstance(leaf, Tensor) and leaf.ndim else None, (arguments, named))
    return of[1] if named else of[0]


def _refused(suffix: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the exporter wraps it in advice of its own
            cause = cause.__cause__
        first = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise ConfigError(
            f"this net cannot be exported to {suffix} ({first.strip()[:200]}): give other inputs to trace it with, as "
            "run.export(path, sample=INPUTS), or export its weights to .safetensors."
        ) from error


def _verify(net: nn.Module, program: Callable[..., Any], inputs: Any, suffix: str) -> None:
    """Refuse a program whose outputs are not those of the net, for the sample and for a smaller one."""
    length = min(len(leaf) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.ndim)
    for size in dict.fromkeys((length, max(1, 2 * length // 3))):
        part = tree_map(partial(_first, size), inputs)
        gap, scale = _difference(net, program, part, suffix)
        if not gap <= TOLERANCE[suffix] * scale:
            raise ConfigError(
                f"the {suffix} program differs from the net by {gap:.2g} for {size} samples, where its outputs go up "
                f"to {scale:.2g}: nothing was written. Export its weights to .safetensors."
            )


def _difference(net: nn.Module, program: Callable[..., Any], inputs: Any, suffix: str) -> tuple[float, float]:
    """The largest difference between the outputs of both, and the largest output."""
    arguments, named = _arguments(inputs)
    with torch.no_grad():
        outputs = (net(*arguments, **named), _refused(suffix, partial(program, *arguments, **named)))
    right, found = ([leaf.cpu().double() for leaf in tree_leaves(one) if isinstance(leaf, Tensor)] for one in outputs)
    gaps = [(one - other).abs().max().item() for one, other in zip(right, found, strict=True)]
    return max(gaps), max(one.abs().max().item() for one in right) or 1.0


def _first(size: int, leaf: Any) -> Any:
    return leaf[:size] if isinstance(leaf, Tensor) and leaf.ndim else leaf
