"""Which parameters of a user's network are weight matrices, as gamma penalises them."""

import re

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

FREE = re.compile(  # parts of names of parameters that are no weights of a layer
    r"bias(es)?$|pos_?(emb|enc)|^pos$|(^|_)position(s|al)?(_(?!wise)|$)|rel_pos"
    r"|(height|width)_rel|(cls|class|dist|reg|mask)_token"
)
LAYERS = (  # whose weights are penalised whatever their names
    *(nn.Linear, nn.Bilinear, _ConvNd),
    *(nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase),
)
WEIGHT = re.compile(r"weight(_v|_orig)?")  # of a layer, also as torch.nn.utils renames it
SCALE = re.compile(r"(^|_)(g|gain|scales?|magnitude)$|original0$")  # of the rows of a weight


def is_matrix(model: nn.Module, name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a weight matrix.

    Its name tells of no token or position. A layer's own matrices and filters may have one row or
    column, as ``Linear(8, 1)``. Any other parameter needs two axes longer than 1: biases,
    normalisations and scales of channels mostly have one axis.

    Args:
        model: the network.
        name: of the parameter.
        parameter: itself.
    """
    owner, last = _owner(model, name)
    layer = isinstance(owner, LAYERS)
    if any(map(FREE.search, [last] if layer else name.split("."))):
        return False
    if layer and WEIGHT.fullmatch(last):
        return parameter.ndim > 1
    if layer and parameter.ndim == 2 and not SCALE.search(last):
        return True
    if isinstance(owner, nn.LayerNorm | nn.RMSNorm):  # others have vectors only
        return False
    return sum(size > 1 for size in parameter.shape) > 1


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a parameter belongs to, and its name there.

    ``layer.parametrizations.weight.original`` is the weight of the layer. A weight normalisation
    keeps its lengths in ``original0`` and its directions in ``original1``.
    """
    path, _, last = name.rpartition(".")
    owner = model.get_submodule(path)
    if not isinstance(owner, ParametrizationList):
        return owner, last
    path, _, kind = f".{path}".rpartition(".parametrizations.")
    layer = model.get_submodule(path.removeprefix("."))
    normed = type(owner[0]).__name__ == "_WeightNorm"
    whole = last == "original" or (normed and last == "original1")
    return layer, kind if whole else f"{kind}.{last}"
