"""Data tracks in two dimensions, for figures (Figs 3 and 9 to 16)."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from scoring.line_shape import as_state

SHOWN = 50  # Keep the tracks of this many points, the first ones.
SEED = 2105  # of all matrices


@lru_cache(maxsize=8)
def projection(dimension: int) -> Tensor:
    """The Gaussian matrix of a dimension. It never changes, for any network or trial.

    Args:
        dimension: d of a state.

    Returns:
        Float64 tensor of shape (2, d) on the CPU, entries N(0, 1/2): the mean over such matrices
        of |P x|^2 is |x|^2, so a projected length has the unit of a state.

    >>> projection(1000).shape
    torch.Size([2, 1000])
    """
    draw = np.random.default_rng([SEED, dimension])
    return torch.from_numpy(draw.standard_normal((2, dimension)) * 0.5**0.5)


def project(state: Tensor) -> Tensor:
    """States of points in two dimensions.

    Args:
        state: tensor or array of shape (m, ...), x^(l) of m points.

    Returns:
        Float64 tensor of shape (m, 2) on the same device, P x for the matrix P of its dimension.
    """
    flat = as_state(state).flatten(1).double()
    return flat @ projection(flat.shape[1]).to(flat.device).T
