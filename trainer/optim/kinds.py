"""The kinds of parameters: matrices, biases, parameters of norms, and embeddings."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

MATRIX, BIAS, NORM, EMBEDDING = "matrix", "bias", "norm", "embedding"
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""torch's norms; `_NormBase` is the base of batch and instance norms."""
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def kinds(net: nn.Module) -> dict[int, str]:
    """The kind of each trainable parameter, by its id.

    The parameters of a norm or an embedding have its kind. Of the rest, a vector with `bias` in its name is a bias, any
    other vector counts as the scale of a norm, and all else is a matrix. A weight tied to an embedding is an embedding.

    >>> net = nn.BatchNorm1d(3)
    >>> [kinds(net)[id(parameter)] for parameter in net.parameters()]
    ['norm', 'norm']
    """
    found: dict[int, str] = {}
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and found.get(id(parameter)) != EMBEDDING:
                found[id(parameter)] = _kind(module, name, parameter)
    return found


def no_decay(net: nn.Module, bias: bool, norm: bool, embedding: bool) -> set[int]:
    """The ids of the parameters without weight decay: those of each kind that is not switched on."""
    decayed = {MATRIX} | {kind for kind, on in ((BIAS, bias), (NORM, norm), (EMBEDDING, embedding)) if on}
    return {key for key, kind in kinds(net).items() if kind not in decayed}


def _kind(module: nn.Module, name: str, parameter: nn.Parameter) -> str:
    if isinstance(module, EMBEDDINGS):
        return EMBEDDING
    if isinstance(module, NORMS):
        return NORM
    vector = parameter.ndim < 2
    if "bias" in name and (vector or parameter.numel() == max(parameter.shape)):
        return BIAS
    return NORM if vector else MATRIX
