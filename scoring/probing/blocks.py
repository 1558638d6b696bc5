"""Find the residual blocks of a model: by structure, name, regular expression or type.

Only structure is known here. Whether a block keeps the shape of its input shows when it runs.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from torch import nn

from scoring.probing.errors import ProbeError

Wanted: TypeAlias = str | type[nn.Module] | Sequence[str] | Sequence[type[nn.Module]]

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
SPREAD = {"DataParallel", "FullyShardedDataParallel", "FSDPModule"}  # by name: not all are imported


class Group(NamedTuple):
    """Blocks that follow each other."""

    label: str  # the types of the modules
    names: tuple[str, ...]  # qualified, in the order of definition


def bare(model: nn.Module) -> nn.Module:
    """The module inside compiled and DistributedDataParallel wrappers, which runs eagerly.

    Raises:
        ProbeError: it spreads its points or its parameters over devices, or is scripted.
    """
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        elif type(model).__name__ == "DistributedDataParallel":
            model = model.module  # type: ignore[assignment]
        else:
            break
    for name, module in model.named_modules():
        kinds = {kind.__name__ for kind in type(module).__mro__}
        where = f" in {name}" if name else ""
        if kinds & SPREAD:
            raise ProbeError(
                f"a model{where} of type {min(kinds & SPREAD)}: its hooks see parts of a batch or "
                "of the parameters; probe the plain model on one device (model.module, or one "
                "that is loaded from the checkpoint)"
            )
        if "ScriptModule" in kinds:
            raise ProbeError(f"a scripted model{where}: it runs no hooks; probe the original one")
    return model


def choose(model: nn.Module, wanted: Wanted) -> list[Group]:
    """The blocks to watch.

    Args:
        model: a bare model.
        wanted: ``auto``, a regular expression for whole qualified names, a type, or a list of
            names or types.

    Returns:
        One group if the blocks were named. For ``auto``, all groups that could be the residual
        blocks, the outermost first: which of them are shows when they run.

    Raises:
        ProbeError: nothing matches, or a block is part of another one.
    """
    if isinstance(wanted, str) and wanted == "auto":
        return _repeated(model)
    names = list(_matching(model, wanted))
    if not names:
        what = wanted.__name__ if isinstance(wanted, type) else wanted
        raise ProbeError(f"blocks: nothing in the model matches {what!r}{candidates(model)}")
    inside = [(a, b) for a in names for b in names if _within(b, a)]
    if inside:
        outer, inner = inside[0]
        raise ProbeError(f"blocks: {inner} is part of {outer}; name blocks that follow each other")
    kinds = dict.fromkeys(type(model.get_submodule(name)).__name__ for name in names)
    return [Group(", ".join(kinds), tuple(names))]


def candidates(model: nn.Module) -> str:
    """Types that occur more than once, as the end of a message."""
    found: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if name and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            found.setdefault(type(module).__name__, []).append(name)
    found = {kind: names for kind, names in found.items() if len(names) > 1}
    if not found:
        return "; no type of module occurs twice in it"
    lines = [
        f"  {kind} x {len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for kind, names in found.items()
    ]
    return "\nTypes that occur more than once, for blocks=:\n" + "\n".join(lines[:20])


def _matching(model: nn.Module, wanted: Wanted) -> Iterable[str]:
    named = {name: module for name, module in model.named_modules() if name}
    if isinstance(wanted, str):
        try:
            pattern = re.compile(wanted)
        except re.error as error:
            raise ProbeError(f"blocks: {wanted!r} is no regular expression: {error}") from error
        return [name for name in named if pattern.fullmatch(name)]
    parts = [wanted] if isinstance(wanted, type) else list(wanted)
    kinds = tuple(part for part in parts if isinstance(part, type))
    names = [part for part in parts if isinstance(part, str)]
    missing = [name for name in names if name not in named]
    if missing or len(kinds) + len(names) < len(parts):
        what = f"no module is named {missing[0]!r}" if missing else "should be names or types"
        raise ProbeError(f"blocks: {what}{candidates(model)}")
    return [name for name, module in named.items() if name in names or isinstance(module, kinds)]


def _repeated(model: nn.Module) -> list[Group]:
    """Groups of types, with parameters and children, that are siblings somewhere."""
    named = dict(model.named_modules())
    kinds: dict[type[nn.Module], list[str]] = {}
    for name, module in named.items():
        inner = any(True for _ in module.children()) and any(True for _ in module.parameters())
        if name and inner and not _only_holds(module):
            kinds.setdefault(type(module), []).append(name)
    siblings: list[set[type[nn.Module]]] = []
    for module in named.values():
        counts = Counter(type(child) for child in module.children() if type(child) in kinds)
        several = {kind for kind, count in counts.items() if count > 1}
        if isinstance(module, CONTAINERS) and several:  # blocks of two types may alternate
            several = {kind for kind in counts if len(kinds[kind]) > 1}
            siblings.append(several)
        else:
            siblings += [{kind} for kind in several]
    groups: list[set[type[nn.Module]]] = []
    for some in siblings:
        for group in [group for group in groups if group & some]:
            groups.remove(group)
            some = some | group
        groups.append(some)
    found = []
    for group in groups:
        names = [name for name, module in named.items() if type(module) in group]
        names = [a for a in names if not any(_within(a, b) for b in names)]
        found.append(Group(", ".join(sorted(kind.__name__ for kind in group)), tuple(names)))
    if not found:
        raise ProbeError(
            f"blocks: {type(model).__name__} has no repeated blocks that 'auto' could find"
            f"{_registered_twice(model)}{candidates(model)}"
        )
    return sorted(found, key=lambda group: min(name.count(".") for name in group.names))


def _registered_twice(model: nn.Module) -> str:
    """A module that a list holds several times, as ``ModuleList([layer] * 4)``, for a message."""
    names: dict[tuple[str, int], list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        parent = name.rpartition(".")[0]
        holds = name and isinstance(model.get_submodule(parent), CONTAINERS)
        if holds and any(True for _ in module.parameters()):
            names.setdefault((parent, id(module)), []).append(name)
    here = next((some for some in names.values() if len(some) > 1), None)
    if here is None:
        return ""
    return f"; {here[0]} is there {len(here)} times: name it, and each of its calls is a block"


def _only_holds(module: nn.Module) -> bool:
    """Whether a module runs its parts as a container does; a subclass may be a residual block."""
    return isinstance(module, CONTAINERS) and any(
        type(module).forward is kind.forward for kind in CONTAINERS
    )


def nested(inner: Group, outer: Group) -> bool:
    """Whether blocks of one group are parts of blocks of another one."""
    return any(_within(a, b) for a in inner.names for b in outer.names)


def _within(name: str, other: str) -> bool:
    return name.startswith(f"{other}.")
