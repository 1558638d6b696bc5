"""Products of the points of a state, from which its effective rank follows."""

from itertools import pairwise

import torch
from torch import Tensor

MOST = 1000  # points: eigenvalues of (m, m) cost m^3
AT_ONCE = 2**20  # numbers in float64 while products are added up


def scatter(state: Tensor) -> Tensor:
    """Products of the centred points of a state, or its scatter matrix if that is smaller.

    Args:
        state: (m, ...).

    Returns:
        Float64 tensor (m, m) or (d, d) on the CPU. Both have the squares of the singular values
        of the centred points as eigenvalues.
    """
    state = state.flatten(1)
    m, d = state.shape
    if d < m:
        centred = state.double()
        centred = centred - centred.mean(0)
        return (centred.T @ centred).cpu()
    products = state.new_zeros(m, m, dtype=torch.float64)
    size = max(1, AT_ONCE // m)
    for start, stop in pairwise([*range(0, d, size), d]):
        part = state[:, start:stop].double()
        part -= part.mean(0)
        products += part @ part.T
    return products.cpu()
