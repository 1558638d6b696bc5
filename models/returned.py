"""Data sets that a callable of a user's file returns: arrays, tensors, or torch's data sets.

They become the four arrays of an ``.npz`` file, and follow the same rules (:mod:`models.archives`).
torch's conventions are understood, too: channels first in tensors, and images from 0
to 1, as ``torchvision.transforms.ToTensor`` makes them.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from models import callables
from models.archives import ARRAYS, CHANNELS, SPLITS, Form, check_memory
from models.callables import Code
from models.errors import CodeError, DataError
from models.messages import first_line, plain, several, short

LEVEL = 0.01  # An image from 0 to 1 has 256 levels if 255 x value is this close to a whole number.
GREY_OR_COLOUR = {"1": "L", "P": "RGB", "PA": "RGBA"}  # modes of PIL images
FORMS = (
    f"a mapping with {', '.join(ARRAYS)}, a tuple ((x_train, y_train), (x_test, y_test)), or two "
    "torch data sets (train, test)"
)


def read(code: Code) -> dict[str, np.ndarray]:
    """Run a user's file anew, call its function without arguments, and return its four arrays.

    So neither an earlier call nor another function of the file changes what it returns. Its output
    goes to standard error.

    Raises:
        DataError: it fails, or returns something else; the message names the file and, where it
            is known, the line.
    """
    where = name(code)
    try:
        with callables.output_as_errors():
            found = callables.call(callables.load(code, anew=True), where, {})
            return {key: np.asarray(value) for key, value in _arrays(found, where).items()}
    except DataError:
        raise
    except CodeError as error:
        _fail(error.__cause__ or error, code, str(error))
    except (Exception, SystemExit) as error:  # whatever the code of the user raises
        _fail(error, code, f"{where}: {type(error).__name__}: {first_line(error)}")


def name(code: Code) -> str:
    """How messages name a callable: ``FILE.py:CALLABLE``."""
    return f"{plain(code.file)}:{code.name}"


def short_name(identity: str) -> str:
    """A file name without ending that stands for a callable.

    >>> short_name("mine.py:digits#0123456789ab")
    'mine-digits'
    """
    file, _, rest = identity.rpartition(":")
    return f"{Path(file).stem}-{rest.partition('#')[0]}"


def _fail(error: BaseException, code: Code, otherwise: str) -> NoReturn:
    line = callables.line(error, code.file)
    told = f"{plain(code.file)}{line}: {type(error).__name__}: {first_line(error)}"
    raise DataError(told if line else otherwise) from error


def _arrays(found: Any, where: str) -> dict[str, Any]:
    """The four arrays in one of the allowed forms."""
    if isinstance(found, Mapping):
        if missing := [key for key in ARRAYS if key not in found]:
            raise DataError(
                f"{where}: returns no {', '.join(missing)}; should return {FORMS} (found: "
                f"{several(found) or 'nothing'})"
            )
        pairs = [(found[f"x_{split}"], found[f"y_{split}"]) for split in SPLITS]
    elif isinstance(found, tuple | list) and len(found) == len(ARRAYS):
        pairs = [(found[0], found[1]), (found[2], found[3])]
    elif isinstance(found, tuple | list) and len(found) == len(SPLITS):
        pairs = [_pair(one, split, where) for one, split in zip(found, SPLITS, strict=True)]
    else:
        raise DataError(f"{where}: returns {_kind(found)}; should return {FORMS}")
    arrays = {}
    for split, (x, y) in zip(SPLITS, pairs, strict=True):
        arrays[f"x_{split}"] = _levels(_array(x, axis=1), f"x_{split}", where)
        arrays[f"y_{split}"] = _array(y)
    return arrays


def _pair(found: Any, split: str, where: str) -> tuple[Any, Any]:
    """Images and labels of one split."""
    if isinstance(found, tuple | list) and len(found) == 2:
        return found[0], found[1]
    if isinstance(found, tuple | list | np.ndarray | Mapping) or _is_tensor(found):
        raise DataError(f"{where}: returns {_kind(found)} for {split}; should return {FORMS}")
    if not (hasattr(found, "__len__") and hasattr(found, "__getitem__")):
        raise DataError(
            f"{where}: returns {_kind(found)} for {split}, without a length or without single "
            f"items; should return {FORMS}"
        )
    return _all_of(found, split, where)


def _all_of(data: Any, split: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a torch data set once, item by item."""
    count = len(data)
    if count == 0:
        raise DataError(f"{where}: {split} has no images")
    x, y = np.empty(0), np.empty(count, np.int64)
    for number in _shown(count, f"{Path(where).name} {split}"):
        item = data[number]
        if not (isinstance(item, tuple | list) and len(item) == 2):
            raise DataError(
                f"{where}: {split}[{number}] is {_kind(item)}; should be an image and its label"
            )
        image = _array(item[0], axis=0)
        image = _levels(image, f"the image of {split}[{number}]", where)
        if number == 0:
            if image.dtype == np.uint8:
                forms = {"x_train": Form(image.dtype, (count, *image.shape))}
                check_memory(forms, where)
            x = np.empty((count, *image.shape), image.dtype)
        if image.shape != x.shape[1:]:
            raise DataError(
                f"{where}: {split}[{number}] has the shape {image.shape}, and {split}[0] "
                f"{x.shape[1:]}; bring all images to one size"
            )
        if image.dtype != x.dtype:  # numbers that do not fit would be wrapped around
            raise DataError(
                f"{where}: {split}[{number}] is {image.dtype}, and {split}[0] {x.dtype}; bring all "
                "images to uint8"
            )
        x[number], y[number] = image, _label(item[1], f"{split}[{number}]", where)
    return x, y


def _shown(count: int, what: str) -> Any:
    """Numbers of items, with a progress bar where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        range(count), what, console=console, transient=True, disable=not console.is_terminal
    )


def _label(value: Any, which: str, where: str) -> int:
    label = _array(value)
    if label.size != 1 or label.dtype.kind not in "iu":
        raise DataError(f"{where}: {which} has the label {short(value)}; should be an integer")
    return int(label.item())


def _is_tensor(value: Any) -> bool:
    """Whether it is a tensor, without loading torch, which a data set need not."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _array(value: Any, axis: int | None = None) -> np.ndarray:
    """An array, tensor, list or PIL image as an array; channels of a tensor go last.

    The numbers of a PIL image may stand for colours of its palette, or for bits; these are no
    levels of grey, so such images are converted.

    Args:
        value: labels, images or one image.
        axis: where a tensor has its channels if it has any: 0 in (c, h, w), which is one image, 1
            in (count, c, h, w), which are several; None for labels.
    """
    if axis == 1 and isinstance(value, list | tuple):
        value = [
            _array(one, axis=0) if hasattr(one, "getbands") or _is_tensor(one) else one
            for one in value
        ]
    if axis is not None and hasattr(value, "getbands") and value.mode in GREY_OR_COLOUR:
        value = value.convert(GREY_OR_COLOUR[value.mode])
    if not _is_tensor(value):
        return np.asarray(value)
    array = value.detach().cpu().numpy()
    if axis is not None and array.ndim == axis + 3 and array.shape[axis] <= CHANNELS:
        return np.moveaxis(array, axis, -1)
    return array


def _levels(x: np.ndarray, what: str, where: str) -> np.ndarray:
    """Images from 0 to 1 as uint8, if that loses nothing but a rounding; others as they are."""
    if x.dtype.kind != "f" or x.size == 0:
        return x
    with np.errstate(all="ignore"):  # NaN and infinity fail the test
        whole = np.rint(255 * x)
        fits = (np.abs(255 * x - whole) <= LEVEL) & (whole >= 0) & (whole <= 255)
    if not fits.all():
        raise DataError(
            f"{where}: {what} is {Form(x.dtype, x.shape)} with values from {x.min():.4g} to "
            f"{x.max():.4g}; should be uint8, or n/255 with n from 0 to 255, as ToTensor makes "
            "them; leave out Normalize, as training standardises each channel"
        )
    return whole.astype(np.uint8)


def _kind(value: Any) -> str:
    """What something is, for a message."""
    if value is None:
        return "nothing"
    kind = type(value).__name__
    article = "an" if kind[0] in "aeiou" else "a"
    return f"{article} {kind}{f' of {len(value)}' if isinstance(value, tuple | list) else ''}"
