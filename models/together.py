"""Fields of a trial that do not fit together, and why: one message that names a field first."""

from typing import Any

from models.recipes import MOMENTUM

OWN = (
    *("network", "layers", "stages", "depth", "normalisation"),
    *("initialisation", "initial_scale", "renormalise"),
)
"""The fields of Table 1's networks."""
NOT_TOGETHER = "belongs to the networks of Table 1, so leave it out together with architecture"


def problem(config: Any) -> str:
    """What is wrong with the combination of fields of a configuration; empty if nothing is.

    Args:
        config: a :class:`models.config.TrialConfig` of which each field is valid by itself.
    """
    if config.architecture is None:
        for name in ("model", "block_pattern"):
            if getattr(config, name) is not None:
                return f"{name} belongs to an architecture, so give that as well"
    for name in OWN if config.architecture is not None else ():
        if (value := getattr(config, name)) is not None:
            return f"{name} = {value} {NOT_TOGETHER}"
    if config.layers == "fully_connected" and config.stages > 1:
        return (
            f"K = {config.stages} needs layers: convolutional; Table 1's fully connected network "
            "has one stage (K = 1)"
        )
    if config.warmup > 0 and config.warmup >= config.epochs:
        return (
            f"warmup = {config.warmup:g} should be below epochs = {config.epochs}, or there is "
            "nothing after it"
        )
    if config.momentum is not None and config.recipe not in MOMENTUM:
        return (
            f"momentum = {config.momentum:g} belongs to recipe: sgd; {config.recipe} has none to "
            "set, so leave it out"
        )
    if config.renormalise and config.normalisation == "none":
        return (
            "renormalise = true needs normalisation: batch or final; without a normalisation every "
            "weight has a scale of its own, so there is none to renormalise"
        )
    return ""
