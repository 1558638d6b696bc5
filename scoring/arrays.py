"""Points and labels from arrays, tensors and lists of any layout.

The functions here do not import torch, so that scoring without tensors does not load it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def floats(values: Any) -> Any:
    """Real numbers as a tensor, or as a NumPy array that torch can share.

    Args:
        values: a tensor, which stays on its device, or anything that NumPy makes an array of:
            with any strides and byte order, read-only, lists of numbers, arrays or tensors.

    Returns:
        Tensors without a gradient. Arrays in native byte order, writable and with positive strides
        (copied where they were not). Numbers of 16, 32 and 64 bits keep their precision; all
        others, such as integers, become float64.

    Raises:
        ValueError: the values are not real numbers, or do not form an array.

    >>> floats(np.arange(3)[::-1])
    array([2., 1., 0.])
    """
    if is_tensor(values):
        if values.is_complex():
            raise ValueError(f"values of type {values.dtype}; should be real numbers")
        values = values.detach()
        return values if values.is_floating_point() else values.double()
    if isinstance(values, Sequence) and any(is_tensor(part) for part in values):
        return _stacked([floats(part) for part in values])
    array = np.asarray(values)
    if array.dtype.kind not in "fiubO":
        raise ValueError(f"values of type {array.dtype}; should be real numbers")
    small = array.dtype.kind == "f" and array.itemsize <= 8
    try:
        array = array.astype(array.dtype.newbyteorder("=") if small else np.float64, copy=False)
    except TypeError as error:  # Python objects that are not numbers
        raise ValueError(f"values that are not real numbers: {error}") from error
    flags, steps = array.flags, array.strides
    shared = flags.writeable and flags.aligned
    shared = shared and all(step >= 0 and step % array.itemsize == 0 for step in steps)
    return array if shared else np.array(array, order="C")


def labels(values: Any) -> np.ndarray:
    """Classes as int64 (m,), from an array, a tensor or a list of any layout and integer type.

    Raises:
        ValueError: the values are not whole numbers.
    """
    array = np.asarray(values.cpu() if is_tensor(values) else values)
    whole = array.astype(np.int64) if array.dtype.kind in "fiubO" else None
    if whole is None or not np.array_equal(whole, array):
        raise ValueError(f"labels of type {array.dtype}; should be whole numbers")
    return whole


def is_tensor(values: Any) -> bool:
    """Whether values are a torch tensor."""
    return hasattr(values, "detach")


def together(x: Any, y: Any) -> tuple[Any, Any]:
    """Two outputs of :func:`floats` in one precision: both arrays, or both tensors on one device.

    They become float64 unless both have 32 bits or less, and tensors if one of them is a tensor.
    """
    single = max(x.dtype.itemsize, y.dtype.itemsize) <= 4
    if is_tensor(x) != is_tensor(y):
        like = (x if is_tensor(x) else y).new_empty(0).double()
        x, y = (part if is_tensor(part) else like.new_tensor(part) for part in (x, y))
    if is_tensor(x):
        return (x.float(), y.float()) if single else (x.double(), y.double())
    kind = np.float32 if single else np.float64
    return x.astype(kind, copy=False), y.astype(kind, copy=False)


def safe_scale(*parts: Any) -> float:
    """A power of two by which to multiply points before they are squared.

    1 if the largest number is from 2^-100 to 2^100 (or is not finite, or 0). Otherwise squares
    could overflow or vanish, and the scale brings the largest number to about 1.
    """
    sizes = [0.0]
    for part in parts:
        if 0 not in part.shape:
            sizes += [float(part.max()), -float(part.min())]
    if not all(map(math.isfinite, sizes)) or max(sizes) == 0:
        return 1.0
    exponent = math.frexp(max(sizes))[1]
    if abs(exponent) <= 100:
        return 1.0
    limit = 120 if any(part.dtype.itemsize <= 4 for part in parts) else 1000
    return 2.0 ** -max(-limit, min(exponent, limit))


def on_cpu(x: Any) -> Any:
    """A tensor as a NumPy array; an array as it is."""
    return x.cpu().numpy() if hasattr(x, "cpu") else x


def double(x: Any) -> Any:
    """float64 of an array, or of a tensor where it is."""
    return x.double() if hasattr(x, "double") else np.asarray(x, dtype=np.float64)


def precision(x: Any) -> float:
    """The rounding error of 1 in the precision of an array or tensor of at least one row."""
    return float(np.finfo(on_cpu(x[:1]).dtype).eps)


def slices(x: Any, count: int) -> Iterator[slice]:
    """Some rows at a time: on a CPU so few that float64 copies of them stay in its cache."""
    rows = 1024 if getattr(x, "is_cuda", False) else max(1, 2**18 // max(1, x.shape[1]))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


def _stacked(parts: list[Any]) -> Any:
    """Tensors and arrays of one shape as one float64 tensor."""
    shapes = sorted({tuple(part.shape) for part in parts})
    if len(shapes) > 1:
        raise ValueError(f"states of shapes {', '.join(map(str, shapes))}; should be the same")
    like = next(part for part in parts if is_tensor(part)).new_empty(0).double()
    whole = like.new_empty((len(parts), *shapes[0]))
    for i, part in enumerate(parts):
        whole[i] = part if is_tensor(part) else like.new_tensor(part)
    return whole
