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
WEIGHT = re.compile(  # of a layer; torch.nn.utils.weight_norm and spectral_norm add the last parts
    r"([a-z]+_proj_)?weight(_(ih|hh|hr)(_l\d+)?(_reverse)?)?(_v|_orig)?"
)


def is_matrix(model: nn.Module, name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a weight matrix.

    That of a layer is one also if it has one row or column, as ``Linear(8, 1)``. Any other
    parameter needs two axes longer than 1, and a name that tells of no token or position: biases,
    normalisations and scales of channels mostly have one axis.

    Args:
        model: the network.
        name: of the parameter.
        parameter: itself.
    """
    owner, last = _owner(model, name)
    layer = isinstance(owner, LAYERS)
    if layer and parameter.ndim > 1 and WEIGHT.fullmatch(last):
        return True
    if sum(size > 1 for size in parameter.shape) < 2:
        return False
    if isinstance(owner, nn.LayerNorm | nn.RMSNorm):  # others have vectors only
        return False
    return layer or not any(map(FREE.search, name.split(".")))


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
