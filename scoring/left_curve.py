"""What a trial leaves of its curve of measures, to be solved once its accelerator is released.

The assignment problems are in ``pending/<trial>/curve.npz``. Whatever process finishes the trial
solves them and adds the rows to its robustness table. The file stays after a kill; if it is lost,
the next run leaves it again from the trial's weights. This module needs neither torch nor Ray.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from scoring import places, storage
from scoring.archive import open_archive, write_arrays
from scoring.problems import CURVE, Place, Problem
from scoring.robustness.record import add_evaluation
from scoring.schemas import KEY


def leave_curve(
    root: str,
    key: Mapping[str, Any],
    settings: Mapping[str, Any],
    problems: Iterable[tuple[Place, Problem]],
) -> None:
    """Keep the assignment problems along the curves of a trial, one at a time in memory.

    Args:
        root: the sweep's folder.
        key: the trial's columns of :data:`scoring.schemas.KEY`.
        settings: of the evaluation, JSON values.
        problems: as :func:`scoring.curve.curve_rows` takes them.
    """

    def arrays() -> Iterator[tuple[str, Any]]:
        left, m = [], 0
        for number, (place, problem) in enumerate(problems):
            for name, array in problem.arrays().items():
                yield f"{name}{number}", array
            left.append(place)
            m = len(problem.own)
        about = {"key": dict(key), "settings": dict(settings), "places": left, "m": m}
        yield "about", np.array(json.dumps(about))

    write_arrays(root, places.curve(key["trial"]), arrays())


def finish_curve(root: str, trial: str, threads: int | None = None) -> None:
    """Solve the curve that a trial left, if it left one, and add it to its robustness table.

    Raises:
        storage.Damaged: the file is damaged.
    """
    path = places.curve(trial)
    if places.CURVE not in storage.list_files(root, places.pending(trial)):
        return
    with open_archive(root, path) as archive:
        text = archive.text("about")
        with storage.reading(root, path):
            about = json.loads(text)
            if {"key", "settings", "places", "m"} - about.keys() or about["key"]["trial"] != trial:
                raise ValueError("it does not say what is in it")
            key = {field.name: about["key"][field.name] for field in KEY}
            left = [(str(name), int(stage), int(block)) for name, stage, block in about["places"]]

        from scoring.curve import curve_rows  # loads numba

        m = about["m"]
        problems = ((Place(*place), archive.problem(n, m)) for n, place in enumerate(left))
        rows = curve_rows(problems, key["seed"], threads)
        add_evaluation(root, key, CURVE, about["settings"], rows)
    storage.delete(root, path)
