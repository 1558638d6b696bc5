"""Checks the architectures of a sweep before anything starts."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.callables import Code, load, output_as_errors
from models.datasets import Dataset
from models.errors import CodeError
from models.messages import plain
from tune_jobs.errors import SweepError
from tune_jobs.evaluations import WITHIN
from tune_jobs.sweep import Sweep

if TYPE_CHECKING:
    from tune_jobs.blocks import Found


def check(
    sweep: Sweep, files: Mapping[str, Code], loaded: Mapping[str, Dataset]
) -> dict[str, "Found"]:
    """Build each architecture of a sweep once, and find its blocks; by trial.

    The output of a user's code goes to standard error.

    Raises:
        SweepError: one cannot be built, trained or followed, or an evaluation cannot run on it.
    """
    file, found = plain(sweep.source), {}
    known: dict[tuple[Any, ...], Found] = {}
    for trial in sweep.trials:
        if trial.architecture is None:
            continue
        for name in sweep.evaluations:
            if name in WITHIN:
                raise SweepError(
                    f"{file}: evaluations: {name} starts from inside a network, which is not "
                    f"possible with {plain(trial.architecture)}; name the others"
                )
        if trial.dataset not in loaded:
            continue
        from tune_jobs import blocks  # loads torch

        data = loaded[trial.dataset]
        arguments = json.dumps(trial.arguments)  # text, as 1 == 1.0 == True
        kind = (
            *(trial.architecture, arguments, trial.block_pattern, trial.precision),
            *(trial.recipe, trial.transport_penalty > 0, trial.straightness_penalty > 0),
            *(data.image, data.classes),
        )
        if kind not in known:
            try:
                with output_as_errors():
                    if trial.architecture in files:
                        load(files[trial.architecture])
                    known[kind] = blocks.check(trial, data.image, data.classes)
            except CodeError as error:
                first, *more = str(error).splitlines()
                raise SweepError(f"{file}: architecture: {first}", *more) from error
        found[trial.trial] = known[kind]
    return found
