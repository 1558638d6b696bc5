"""Searches with several seeds a cell: means are compared, and bad cells get no more seeds."""

import re
from contextlib import suppress
from types import SimpleNamespace

import pytest
from studies import asked, made_up, study_of

from scoring import places, storage
from scoring.tables import write_table
from tune_jobs import folder, service
from tune_jobs.errors import SweepError
from tune_jobs.status import status
from tune_jobs.study import Study

SEEDS = """
layers: fully_connected
network: [plain, resnet]
gamma: {low: 1e-5, high: 0.1}
epochs: 3
seeds: 3
search: {objectives: test_accuracy, trials: 8}
"""


def with_noise(config) -> dict:
    """A row like :func:`made_up`, that depends on the seed, too."""
    seed, own = 0.05 * config.seed, int(config.trial, 16) % 100 * 1e-5
    row = made_up(config)
    return row | {"test_accuracy": row["test_accuracy"] + seed + own}


def story(study: Study) -> list:
    """What a study holds of each of its cells, and our trials."""
    cells = [(t.params, t.values, t.state.name) for t in study._study.trials]
    return [cells, [trial.trial for trial in study.cells], study.ended]


def finish(study: Study, rows: dict, claim=lambda study: None) -> None:
    """Train one trial after the other, as a driver does."""
    while study.left:
        for config in study.cells:  # of a driver that was killed
            if config.trial not in rows:
                break
        else:
            config = study.suggest()
            claim(study)
        if config is not None:
            rows[config.trial] = with_noise(config)
            study.tell(config.trial, rows[config.trial])


def test_a_search_compares_means_over_seeds_and_stops_what_is_clearly_worse(tmp_path):
    found = asked(tmp_path, SEEDS)
    assert (found.rules.seeds, found.search.trials) == (3, 8)
    study, rows = study_of(str(tmp_path), found), {}
    assert study.left == 24
    finish(study, rows)
    seeds: dict[str, list[int]] = {}
    for config in study.cells:
        seeds.setdefault(config.model_copy(update={"seed": 0}).trial, []).append(config.seed)
    assert len(seeds) == 8
    assert all(own == [0, 1, 2][: len(own)] for own in seeds.values())
    assert len(rows) < 24  # some were stopped
    why = study.why_ended(next(iter(study.ended)), ["network", "gamma", "seed"])
    words = r"plain gamma=\S+ after 1 of 3 seeds: clearly worse than resnet gamma=\S+"
    assert re.fullmatch(f"no more seeds for {words}", why)
    assert study.ended == {cell: len(own) for cell, own in seeds.items() if len(own) < 3}
    best = max(seeds, key=lambda cell: rows[cell]["test_accuracy"])
    assert len(seeds[best]) == 3
    for cell, trial in zip(study._suggested, study._study.trials, strict=True):
        values = [rows[own]["test_accuracy"] for own in cell.trials]
        if len(values) == 3:
            assert trial.values == pytest.approx([sum(values) / 3])
        else:  # the mean of the seeds that it lacks is estimated
            assert trial.values == pytest.approx([sum(values) / len(values) + 0.05], abs=0.03)


class Killed(BaseException):
    """As SIGKILL: nothing of this process is left but its files."""


def dying(writes: int):
    """A stand-in for ``storage.write_file`` that kills the driver at a write after so many."""
    real, left = storage.write_file, [writes]

    def write(root: str, path: str, content: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(root, path, content)

    return write


def test_a_search_with_seeds_killed_at_every_write_ends_with_the_same_study(tmp_path):
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    found = asked(tmp_path, SEEDS, "search.trials=6")
    study, rows, lives = study_of(whole, found), {}, 0
    finish(study, {})
    assert study.ended

    def claim(study):
        folder.claim(parts, found, study.cells, ended=study.ended)

    killed = True
    while killed:
        lives += 1
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            patch.setattr(storage, "write_file", dying(2 + lives % 2))
            again = study_of(parts, found, folder.description(parts).suggested)
            claim(again)
            for trial in sorted(rows):  # a table has an order of its own
                again.tell(trial, rows[trial])
            finish(again, rows, claim)
            claim(again)
            killed = False
    assert lives > 10
    assert story(again) == story(study)
    assert story(study_of(parts, found, folder.description(parts).suggested)) == story(study)
    assert folder.inspect(parts).to_suggest == 0


@pytest.mark.parametrize("kept", ["rows", "checkpoints", "the last seeds"])
def test_a_search_with_seeds_whose_sweep_json_was_deleted_knows_every_seed(tmp_path, kept):
    """Its message says so when it is torn. Only it lists the seeds, and study.log the cells."""
    root, found = str(tmp_path / "out"), asked(tmp_path, SEEDS, "search.trials=4")
    study, rows = study_of(root, found), {}
    finish(study, rows)
    folder.claim(root, found, study.cells, ended=study.ended)
    last = {cell.trials[-1] for cell in study._suggested}
    for config in study.cells:
        if kept == "checkpoints":
            storage.write_file(root, places.checkpoint(config.trial), b"")
        elif kept == "rows" or config.trial in last:  # damaged rows were set aside
            row = config.row() | rows[config.trial]
            write_table(root, "trials", config.trial, [row])
    (tmp_path / "out" / places.SWEEP).write_bytes(b"")
    with pytest.raises(SweepError, match="delete it, geosweep run writes it again"):
        folder.inspect(root)
    storage.delete(root, places.SWEEP)
    again = study_of(root, found, folder.description(root).suggested)
    folder.claim(root, found, again.cells, ended=again.ended)
    assert {trial.trial for trial in again.cells} == rows.keys()
    assert [cell.trials for cell in again._suggested] == [cell.trials for cell in study._suggested]
    state = folder.inspect(root)
    assert state.extra == []
    assert state.to_suggest == again.left == 0
    assert state.ended == study.ended


def test_a_seed_that_failed_holds_its_cell_up_until_it_is_trained_again(tmp_path):
    found = asked(tmp_path, SEEDS, "search.trials=2")
    study = study_of(str(tmp_path), found)
    first = study.suggest()
    assert study.suggest().seed == 0  # of the second cell, as the first may be a bad one
    assert study.suggest() is None
    study.tell(first.trial, {"status": "failed"})
    assert study.left == 2
    study.tell(first.trial, with_noise(first))
    assert study.left == 4
    assert study.suggest().seed == 1
    study.tell(study.cells[-1].trial, {"status": "diverged"})
    assert study.ended == {first.trial: 2}
    folder.claim(str(tmp_path), found, study.cells, ended=study.ended)
    assert folder.inspect(str(tmp_path)).to_suggest == study.left == 2
    said = str(status(str(tmp_path)))
    assert said.startswith("s: at most 5 trials\n")
    assert "cells: 0 with all 3 seeds, 1 ended after fewer" in said


@pytest.mark.parametrize("change", ["seeds=4", "exclude=[]", "when=[]"])
def test_a_search_with_other_rules_is_another_search(tmp_path, change):
    text = SEEDS + "exclude: [{network: plain, K: 1}]\nwhen: [{if: {network: resnet}, K: 1}]"
    study_of(str(tmp_path), asked(tmp_path, text)).suggest()
    name = change.partition("=")[0]
    text = text.replace("seeds: 3", "seeds: 4") if name == "seeds" else text.replace(name, "#")
    with pytest.raises(SweepError, match=f"is of a search with {name} .* choose another folder"):
        study_of(str(tmp_path), asked(tmp_path, text))


def test_a_lost_study_says_how_many_cells_it_lost_whatever_else_the_folder_has(
    tmp_path, monkeypatch
):
    """A listed cell is not in the space; the folder has further seeds, which are not listed."""
    found = asked(tmp_path, SEEDS)
    first = study_of(str(tmp_path), found).suggest()
    seeds = [first.model_copy(update={"seed": seed}) for seed in range(3)]
    elsewhere = first.model_copy(update={"epochs": 99})
    (tmp_path / places.STUDY).unlink()
    folder.claim(str(tmp_path), found, [seeds[1], elsewhere])
    monkeypatch.setattr(folder, "begun", lambda root: {trial.trial for trial in seeds})
    lines = []
    monkeypatch.setattr(service, "_say", lambda console, line: lines.append(line))
    request = SimpleNamespace(sweep=found, root=str(tmp_path))
    study = service._study(request, None)
    assert {trial.trial for trial in study.cells} == {trial.trial for trial in seeds}
    (line,) = lines
    said = "goes on from 1 trial of it in sweep.json, without 1 that its space does not have"
    assert line.endswith(said)
