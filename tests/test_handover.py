"""What a trained trial leaves for scoring, and how it is finished."""

import json
import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from scoring import handover, places, storage
from scoring.tables import read_row, read_rows
from scoring.transport import assignment_problem, optimal_transport_score

POINTS = 30
MOMENT = "2026-01-01T00:00:00+00:00"
OF_EVERY_VERSION = ("train_loss", "train_accuracy", "clean_train_loss", "clean_train_accuracy")
LOSSES = dict.fromkeys((*OF_EVERY_VERSION, "test_loss", "test_accuracy"), 1.0)


def made_history(status="done", stages=(1, 2), epochs=(0, 1)):
    """History of a trial whose stages all have the same scores."""
    key = {"trial": "a", "dataset": "digits", "network": "plain", "stages": len(stages)}
    summary = key | {"gamma": 0.0, "seed": 0, "status": status, "started_at": MOMENT}
    scores = {"lss": 1.5, "inverse_lss": 0.7, "lsr": 1.2, "lss_random": 2.0, "m": POINTS}
    return {
        "summary": summary,
        "epochs": [{"epoch": e} | LOSSES | {"seconds": 1.0, "finished_at": MOMENT} for e in epochs],
        "tracks": [{"epoch": e, "stage": k, "blocks": 4} | scores for e in epochs for k in stages],
    }


def made_points(seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(2, POINTS, 5))


def save(root, path, arrays):
    with storage.writing(root, path) as stream:
        np.savez(stream, **arrays)


@pytest.mark.parametrize("kept", ["products", "points"])
def test_files_that_an_earlier_version_left_are_finished(tmp_path, kept):
    """Names of arrays as they have been from the start: a field and the number of its stage."""
    root = str(tmp_path)
    history = made_history()
    history["summary"] |= {"seconds": 2.0, "trained_at": MOMENT}
    files = {places.initial("a"): {}, places.final("a"): {}}
    for number, arrays in enumerate(files.values()):
        for stage in (1, 2):
            x, y = made_points([number, stage])
            if kept == "products":  # more dimensions than half the points
                x, y = np.tile(x, 5), np.tile(y, 5)
            problem = assignment_problem(x, y).arrays()
            for later in ("random_cost", "along", "relative", "gram"):
                problem.pop(later, None)
            assert ("inner" in problem) == (kept == "products")
            arrays |= {f"{name}{stage}": value for name, value in problem.items()}
    labels = np.arange(POINTS) % 3
    files[places.final("a")] |= {"labels": labels, "predictions": labels[::-1]}
    for stage in (1, 2):
        line = np.linspace(1, 2, POINTS) + stage
        files[places.final("a")] |= {f"score{stage}": line, f"ratio{stage}": line / 2}
    files[places.final("a")]["history"] = np.array(json.dumps(history))
    for path, arrays in files.items():
        save(root, path, arrays)

    assert handover.waiting(root) == ["a"]
    handover.finish(root, "a")
    assert handover.waiting(root) == []
    tracks = read_rows(root, "tracks", "a")
    wanted = {
        (number, stage): optimal_transport_score(*made_points([number, stage]))
        for number in (0, 1)
        for stage in (1, 2)
    }
    for row in tracks:
        assert row["ots"] == wanted[row["epoch"], row["stage"]].ots
        assert row["ots_initial"] == wanted[0, row["stage"]].ots
        assert len(row["ots_by_class"]) == 3
        assert (row["ots_shuffled"], row["shuffled_seconds"]) == (None, None)
    samples = read_rows(root, "samples", "a")
    assert [(row["stage"], row["point"]) for row in samples] == [
        (stage, point) for stage in (1, 2) for point in range(POINTS)
    ]
    second = samples[POINTS:]
    assert_array_equal([row["permutation"] for row in second], wanted[1, 2].permutation)
    assert_array_equal([row["lss"] for row in second], np.linspace(1, 2, POINTS) + 2)
    assert_array_equal([row["prediction"] for row in second], labels[::-1])
    trial = read_row(root, "trials", "a")
    assert trial["ots"] == np.mean([wanted[1, stage].ots for stage in (1, 2)])
    assert math.isnan(trial["ots_shuffled"])
    assert trial["seconds"] == 2.0
