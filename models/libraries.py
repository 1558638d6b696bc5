"""Networks of torchvision and timm with random weights: nothing is downloaded."""

import inspect
from collections.abc import Mapping
from typing import Any

from models.callables import call
from models.config import ARGUMENT
from models.errors import CodeError
from models.messages import did_you_mean, first_line, plain

FIXED = {  # arguments that name a model, or weights to download
    *("name", "model_name", "weights", "weights_backbone", "pretrained", "checkpoint_path"),
    *("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "cache_dir"),
}


def library_model(what: str, classes: int, given: Mapping[str, Any]) -> Any:
    """A network of a library.

    Args:
        what: ``torchvision:NAME`` or ``timm:NAME``.
        classes: the number of classes.
        given: further arguments.

    Raises:
        CodeError: there is no such network, or it does not take the arguments.
    """
    library, _, name = what.partition(":")
    if refused := FIXED.intersection(given):
        raise CodeError(
            f"{plain(what)}: {ARGUMENT}{min(refused)} cannot be given: weights are drawn at random"
        )
    offered = {"num_classes": classes}
    if library == "torchvision":
        from torchvision.models import get_model, list_models

        _check_known(what, name, list_models())
        return call(get_model, what, offered, name=name, **no_weights(name), **given)
    try:
        import timm
    except ImportError as error:
        raise CodeError(
            f"{what}: timm cannot be imported ({first_line(error)}); pip install timm"
        ) from error
    _check_known(what, name.partition(".")[0], timm.list_models())
    return call(timm.create_model, what, offered, model_name=name, pretrained=False, **given)


def no_weights(name: str) -> dict[str, None]:
    """Arguments for ``torchvision.models.get_model`` that leave all weights as they are drawn.

    Models for segmentation and detection download weights of their backbone unless that is said.

    >>> no_weights("resnet18"), no_weights("fcn_resnet50")
    ({'weights': None}, {'weights': None, 'weights_backbone': None})
    """
    from torchvision.models import get_model_builder

    takes = inspect.signature(get_model_builder(name)).parameters
    return {"weights": None, **({"weights_backbone": None} if "weights_backbone" in takes else {})}


def _check_known(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        library = what.partition(":")[0]
        raise CodeError(f"{plain(what)}: {library} has no such model{did_you_mean(name, known)}")
