"""Load a model to probe: of torchvision, timm or transformers, or from a Python file."""

import re
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models import callables
from models.errors import CodeError
from models.libraries import no_weights
from models.messages import did_you_mean, first_line, plain, several
from scoring.probing.nulls import not_called
from tune_jobs.errors import SweepError

FORMS = "torchvision:NAME, timm:NAME, transformers:FOLDER or FILE.py:CALLABLE"


class Loaded(NamedTuple):
    """A model with what its inputs take."""

    model: nn.Module
    pictures: bool  # it takes standardised colour images
    tokenizer: Any = None
    again: Callable[[], nn.Module] | None = None  # builds it with the library's own new weights


def load(name: str, weights: str | None, option: str = "--weights") -> Loaded:
    """The model of a name, in evaluation mode.

    Nothing is downloaded, and no code that comes with weights runs: without ``weights`` networks
    of torchvision and timm have random ones.

    Args:
        name: one of the forms of :data:`FORMS`.
        weights: a file with a state dict, of torch or safetensors.
        option: what named it, for messages.

    Raises:
        SweepError: there is no such model, or the weights are not its own.
    """
    kind, _, rest = name.rpartition(":")
    makers: dict[str, Callable[[str], Loaded]] = {
        "torchvision": _torchvision,
        "timm": _timm,
        "transformers": _transformers,
    }
    if kind in makers and rest:
        loaded = makers[kind](rest)
    elif kind.endswith(".py") and rest:
        loaded = Loaded(_of_file(kind, rest), pictures=False)
    else:
        raise SweepError(f"{plain(name)}: no model; should be {FORMS}")
    if weights is not None:
        _fill(loaded.model, weights, option)
    return loaded._replace(model=loaded.model.eval())


def _torchvision(name: str) -> Loaded:
    from torchvision.models import get_model, list_models

    _known("torchvision", name, list_models())
    make = lambda: get_model(name, **no_weights(name))  # noqa: E731
    return Loaded(_made(f"torchvision:{name}", make), True, again=make)


def _timm(name: str) -> Loaded:
    try:
        import timm
    except ImportError as error:
        raise _missing("timm", error) from error
    _known("timm", name.partition(".")[0], timm.list_models())
    make = lambda: timm.create_model(name, pretrained=False)  # noqa: E731
    return Loaded(_made(f"timm:{name}", make), True, again=make)


def _transformers(folder: str) -> Loaded:
    try:
        import transformers
    except ImportError as error:
        raise _missing("transformers", error) from error
    place = Path(folder)
    if not (place / "config.json").is_file():
        raise SweepError(
            f"transformers:{plain(folder)}: no folder with a config.json; save one with "
            "model.save_pretrained and tokenizer.save_pretrained"
        )
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    what = f"transformers:{plain(folder)}"
    model = _made(what, lambda: transformers.AutoModel.from_pretrained(place, **here))
    tokenizer = _made(
        f"{what}: its tokenizer", lambda: transformers.AutoTokenizer.from_pretrained(place, **here)
    )
    return Loaded(model, False, tokenizer)


def _of_file(file: str, name: str) -> nn.Module:
    """What a callable of a user's file returns. The file runs under a private name."""
    what = f"{file}:{name}"
    try:
        model = callables.call(callables.load(callables.find(what)), plain(what), {})
    except CodeError as error:
        raise SweepError(str(error)) from error
    if not isinstance(model, nn.Module):
        raise SweepError(
            f"{plain(what)} returns {plain(type(model).__name__)}; should return a torch.nn.Module"
        )
    return model


def _fill(model: nn.Module, file: str, option: str) -> None:
    """Load weights from a file."""
    what = f"{option} {plain(file)}"
    if not Path(file).is_file():
        raise SweepError(f"{what}: no such file")
    state = _made(what, lambda: _state(file, what))
    for name in ("state_dict", "model_state_dict", "model", "network", "ema"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
            break
    if not isinstance(state, dict) or not all(map(_is_weight, state.items())):
        holds = f"; it holds {several(state)}" if isinstance(state, dict) else ""
        raise SweepError(f"{what}: should hold a state dict, names with tensors{holds}")
    if lazy := not_called(model):
        raise SweepError(
            f"{what}: {plain(lazy)} gets its shape in its first call; call the model once first, "
            "in the function that returns it"
        )
    called = {_bare(name): name for name in model.state_dict()}
    own = {_bare(name): value for name, value in model.state_dict().items()}
    state = _unwrapped(state, own)
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    # Files of torch before 0.4.1 lack this count, which no forward pass of a trained model needs.
    missing = [name for name in missing if not name.endswith(".num_batches_tracked")]
    other = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    for names, problem in ((missing, "lacks"), (foreign, "has, but the model has not,")):
        if names:
            raise SweepError(f"{what}: it {problem} {plain(names[0])} ({len(names)} such names)")
    if other:
        name = min(other)
        raise SweepError(
            f"{what}: {plain(name)} has shape {tuple(state[name].shape)}, in the model "
            f"{tuple(own[name].shape)}"
        )
    model.load_state_dict({called[name]: value for name, value in state.items()}, strict=False)


def _is_weight(entry: tuple[Any, Any]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Tensor)


def _bare(name: str) -> str:
    """The name of a weight without the parts that torch.compile adds."""
    return name.replace("_orig_mod.", "")


def _unwrapped(state: dict[str, Tensor], own: Container[str]) -> dict[str, Tensor]:
    """A state dict without the names of wrappers, several of which may lie around each other."""
    state = {_bare(name): value for name, value in state.items()}
    wrappers = ("module.", "model.")  # the last is that of a sweep's checkpoint
    while True:
        if "n_averaged" not in own:
            state.pop("n_averaged", None)  # of torch.optim.swa_utils.AveragedModel
        start = next((s for s in wrappers if all(name.startswith(s) for name in state)), None)
        if start is None or not state or any(name in own for name in state):
            return state
        state = {name.removeprefix(start): value for name, value in state.items()}


def _state(file: str, what: str) -> Any:
    if file.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, MemoryError):
        raise
    except Exception as error:  # what other files and damage lead to is of many types
        code = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        said = (
            f"holds code ({plain(code[1])}), not only tensors; save model.state_dict()"
            if code
            else "was not written by torch.save, or is damaged"
        )
        raise SweepError(f"{what}: {said}") from error


def _made(what: str, make: Callable[[], Any]) -> Any:
    """What a function of a library or a user returns; its error as one message."""
    try:
        return make()
    except SweepError:
        raise
    except Exception as error:
        raise SweepError(f"{what}: {type(error).__name__}: {first_line(error)}") from error


def _known(library: str, name: str, names: list[str]) -> None:
    if name not in names:
        hint = did_you_mean(name, names)
        raise SweepError(f"{library}:{plain(name)}: {library} has no such model{hint}")


def _missing(library: str, error: ImportError) -> SweepError:
    return SweepError(f"{library} cannot be imported ({first_line(error)}); pip install {library}")
