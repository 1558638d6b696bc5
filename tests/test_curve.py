"""The curve of measures as an evaluation: its numbers, what a trial leaves of it, and the rows."""

import io
import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from test_energy import points_of
from test_geodesic import cloud, geodesic
from test_robustness import made

from models.config import TrialConfig
from scoring import handover, places, storage
from scoring.curve import SHUFFLED, curve_rows
from scoring.geodesic import geodesic_excess, wasserstein_curve
from scoring.left_curve import finish_curve, leave_curve
from scoring.problems import CURVE, INITIAL, Place
from scoring.robustness.areas import COLUMNS, curve_summary, summary
from scoring.robustness.curve import curve, curve_problems
from scoring.tables import read_row, read_rows
from scoring.transport import assignment_problem
from tune_jobs import folder, measuring, sweep, trial
from tune_jobs.commands.ending import curve_table
from tune_jobs.evaluations import Evaluations, read
from tune_jobs.tuning import Setup

KEY = {"trial": "a", "dataset": "digits", "network": "plain", "stages": 1, "gamma": 0.0, "seed": 3}
FACTORS = ("block_factor", "speed_factor", "length_ratio", "length_ratio")


def problems(track, stage=1, evaluation=CURVE):
    """The problems along a track (n + 1, m, d), as a network's states give them."""
    for block, (x, y) in enumerate(pairwise(track), 1):
        yield Place(evaluation, stage, block), assignment_problem(x, y, baseline=True)
    yield Place(evaluation, stage, 0), assignment_problem(track[-1], track[0], baseline=True)


def of(rows, evaluation=CURVE, stage=1):
    """The rows of the blocks of a stage, and that of the whole."""
    here = [row for row in rows if (row["evaluation"], row["stage"]) == (evaluation, stage)]
    return here[:-1], here[-1]


def walk(seed, blocks=4, m=5, d=3):
    return torch.stack([cloud(m, d, seed + k) for k in range(blocks + 1)]).cumsum(0)


def wide(track):
    """The same points in so many dimensions that products are kept instead of points."""
    more = torch.zeros(*track.shape[:2], track.shape[1] + 1, dtype=track.dtype)
    return torch.cat([track, more], dim=2)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.booleans())
def test_speeds_ots_and_polar_parts_are_those_of_plain_loops(seed, products):
    track = walk(seed)
    rows = curve_rows(problems(wide(track) if products else track), threads=1)
    blocks, whole = of(rows)
    wanted, ratio = reference.curve(points_of(track))
    found = [[b[name] for name in ("speed", "energy", "ots", "polar_share")] for b in blocks]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    assert [b["block"] for b in blocks] == [1, 2, 3, 4]
    assert whole["length_ratio"] == pytest.approx(ratio, rel=1e-6)


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_the_three_factors_of_a_stage_make_its_geodesic_excess(seed):
    track = walk(seed, m=8, d=2)
    _, whole = of(curve_rows(problems(track), threads=1))
    assert math.prod(whole[n] for n in FACTORS) == pytest.approx(whole["geodesic_excess"])
    assert whole["geodesic_excess"] == pytest.approx(geodesic_excess(track).excess)
    assert min(whole[name] for name in FACTORS) >= 1 - 1e-9
    one = wasserstein_curve(track)
    assert whole["speed_variation"] == pytest.approx(one.speed_variation)
    assert whole["length_ratio"] == pytest.approx(one.length_ratio)


@pytest.mark.parametrize("products", [False, True])
def test_on_a_geodesic_every_block_is_optimal_and_nothing_is_polar(products):
    track = geodesic(cloud(40, 3), 4)
    rows = curve_rows(problems(wide(track) if products else track), threads=1)
    blocks, whole = of(rows)
    for one in (*blocks, whole):
        assert (one["ots"], one["polar_share"]) == (1, 0)
        assert one["gap"] == pytest.approx(1)
    assert [whole[name] for name in FACTORS] == pytest.approx([1] * 4, rel=1e-6)
    assert [b["speed"] for b in blocks] == pytest.approx([whole["speed"] / 4] * 4)


def test_a_swap_is_all_polar():
    x = torch.tensor([[0.0], [1.0], [9.0]], dtype=torch.float64)
    blocks, whole = of(curve_rows(problems(torch.stack([x, x[[1, 0, 2]], x + 1])), threads=1))
    assert (blocks[0]["speed"], blocks[0]["polar_share"]) == (0, 1)
    assert blocks[0]["ots"] == 1 / 3
    assert whole["length_ratio"] == 1


def test_the_size_of_the_states_only_sets_their_unit():
    track = walk(1, m=6)
    wanted = curve_rows(problems(track), threads=1)
    for power in (-500, 500):
        found = curve_rows(problems(track * 2.0**power), threads=1)
        for name in ("ots", "gap", "polar_share", "length_ratio", "block_factor"):
            for row, other in zip(found, wanted, strict=True):
                assert row.get(name) == pytest.approx(other.get(name))


def test_shuffled_displacements_are_free_in_high_dimension():
    track = torch.stack([cloud(30, 500, k) for k in range(3)]).cumsum(0)
    blocks, whole = of(curve_rows(problems(track), threads=1), SHUFFLED)
    assert [b["ots"] for b in blocks] == [1, 1]
    assert whole["block_factor"] == pytest.approx(1, rel=1e-6)


def test_a_collapsed_stage_has_speeds_but_no_factors():
    track = torch.stack([cloud(6, 2), cloud(6, 2, 1), torch.ones(6, 2, dtype=torch.float64)])
    blocks, whole = of(curve_rows(problems(track), threads=1))
    assert all(b["speed"] > 0 for b in blocks)
    assert math.isnan(blocks[1]["ots"])
    assert math.isnan(blocks[1]["polar_share"])
    assert all(math.isnan(whole[name]) for name in (*FACTORS, "geodesic_excess", "polar_share"))


def test_a_collapsed_block_is_in_no_mean_and_the_others_are_counted():
    """Block 1 swaps two points, block 2 collapses all, block 3 draws them apart again."""
    swap = torch.tensor([[[0.0, 0], [1, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 9]]])
    rows = curve_rows(problems(swap.double()), threads=1)
    blocks, whole = of(rows)
    assert blocks[0]["polar_share"] == 1
    assert all(math.isnan(b[name]) for b in blocks[1:] for name in ("polar_share", "ots"))
    assert whole["polar_share"] == 1  # not diluted by the energy of the other two
    found = curve_summary(rows)
    assert (found["curve_blocks"], found["curve_polar_share"], found["curve_block_ots"]) == (
        1,
        1,
        0,
    )
    still = curve_rows(problems(torch.zeros(3, 2, 2, dtype=torch.float64)), threads=1)
    found = curve_summary(still)
    assert found["curve_blocks"] == 0
    assert math.isnan(found["curve_polar_share"])
    assert math.isnan(found["curve_block_ots"])


@pytest.mark.parametrize("layers", ["fully connected", "convolutional"])
def test_a_network_is_measured_at_its_own_states_next_to_the_untrained_one(layers):
    subject, other = made(("resnet", layers), batch=7), made(("plain", layers))
    rows = curve(replace(subject, untrained=lambda: other.network), points=20, threads=1)
    few = replace(subject, images=subject.images[:20], labels=subject.labels[:20])
    for name, network in ((CURVE, subject.network), (INITIAL, other.network)):
        here = replace(few, network=network)
        with torch.no_grad():
            whole = replace(here, batch=20)
            states = list(whole.walk(next(whole.parts())[1]))
        for stage, n in subject.blocks().items():
            track = torch.stack([x.flatten(1) for k, _, x in states if k == stage])
            blocks, found = of(rows, name, stage)
            assert len(blocks) == n
            assert found["m"] == 20
            wanted = wasserstein_curve(track, threads=1)
            assert found["length_ratio"] == pytest.approx(wanted.length_ratio, rel=1e-5)
            np.testing.assert_allclose([b["speed"] for b in blocks], wanted.speeds, rtol=1e-5)
    alone = curve(replace(subject, untrained=None), 10, threads=1)
    assert {row["evaluation"] for row in alone} == {CURVE, SHUFFLED}


def test_columns_of_a_trial_are_means_over_its_stages():
    rows = [
        row
        for stage in (1, 2)
        for name in (CURVE, INITIAL)
        for row in curve_rows(problems(walk(stage + len(name)), stage, name), threads=1)
    ]
    found = curve_summary(rows)
    stages = [of(rows, CURVE, k)[1] for k in (1, 2)]
    assert found["curve_length_ratio"] == pytest.approx(
        math.prod(s["length_ratio"] for s in stages) ** 0.5
    )
    assert found["curve_polar_share"] == pytest.approx(np.mean([s["polar_share"] for s in stages]))
    blocks = [b["ots"] for k in (1, 2) for b in of(rows, INITIAL, k)[0]]
    assert found["curve_block_ots_initial"] == pytest.approx(np.mean(blocks))
    assert {"curve_block_ots_shuffled", "curve_block_factor_shuffled"} < found.keys()
    assert "curve_length_ratio_shuffled" not in found
    assert summary(rows) == found
    assert set(found) == {name for name in COLUMNS if name.startswith("curve_")}
    assert curve_summary([]) == {}


def test_a_stage_of_one_block_is_in_no_mean_of_factors_beside_longer_ones():
    long, short = (
        curve_rows(problems(walk(1)), threads=1),
        curve_rows(problems(walk(2)[:2], 2), threads=1),
    )
    both, alone = curve_summary([*long, *short]), curve_summary(long)
    for name in ("length_ratio", "block_factor", "speed_factor", "speed_variation"):
        assert both[f"curve_{name}"] == alone[f"curve_{name}"]
    assert both["curve_blocks"] == alone["curve_blocks"] + 1
    assert curve_summary(short)["curve_length_ratio"] == pytest.approx(1)


@pytest.mark.parametrize("products", [False, True])
def test_what_a_trial_leaves_is_solved_later_and_then_gone(tmp_path, products):
    root, track = str(tmp_path), wide(walk(5)) if products else walk(5)
    leave_curve(root, KEY, {"points": 5}, problems(track))
    assert storage.list_files(root, places.pending("a")) == [places.CURVE]
    finish_curve(root, "a", 1)
    finish_curve(root, "a", 1)
    assert storage.list_files(root, places.pending("a")) == []
    rows = read_rows(root, "robustness", "a")
    for row, wanted in zip(rows, curve_rows(problems(track), seed=3, threads=1), strict=True):
        assert {name: row[name] for name in wanted} == pytest.approx(wanted)
        assert (row["of"], json.loads(row["settings"]), row["seed"]) == ("curve", {"points": 5}, 3)


def test_a_problem_is_written_before_the_next_one_is_made(tmp_path):
    """So that the curve needs no more memory with many blocks."""
    alive = []

    def counted():
        for place, problem in problems(walk(0)):
            alive.append(place)
            assert len(alive) == 1
            yield place, problem
            alive.clear()

    leave_curve(str(tmp_path), KEY, {}, counted())


@pytest.mark.parametrize("harm", ["cut", "changed", "other"])
def test_a_damaged_file_is_named_and_set_aside(tmp_path, harm):
    root = str(tmp_path)
    leave_curve(root, KEY, {"points": 5}, problems(walk(5)))
    path = tmp_path / places.curve("a")
    content = bytearray(path.read_bytes())
    if harm == "changed":
        content[content.rindex(b"\x93NUMPY") - 500] ^= 1  # in the data of an array
    path.write_bytes(content[:1000] if harm == "cut" else content)
    if harm == "other":
        leave_curve(root, KEY | {"trial": "b"}, {}, problems(walk(5)))
        (tmp_path / places.curve("b")).replace(path)
    with pytest.raises(storage.Damaged, match=r"pending/a/curve.npz: torn"):
        handover.finish(root, "a")
    assert storage.list_files(root, places.pending("a")) == []
    assert storage.list_files(root, places.ASIDE) == ["pending-a-curve.npz"]


CONFIG = TrialConfig(layers="fully_connected", network="resnet", epochs=1, points=30)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train a tiny trial without Ray; again, only evaluate it."""
    monkeypatch.setattr(trial.tune, "report", lambda record: None)

    def call(points):
        wanted = {"curve": {"points": points}}
        setup = Setup(str(tmp_path), {"digits": "digits"}, evaluations=wanted)
        trial.run_trial(CONFIG.model_dump(), setup)
        return str(tmp_path)

    return call


def test_the_curve_of_a_trial_has_the_excess_that_its_tracks_have(trained):
    root = trained(1000)
    assert read_rows(root, "robustness", CONFIG.trial) == []  # nothing is solved in the trial
    handover.finish(root, CONFIG.trial, threads=1)
    rows, row = read_rows(root, "robustness", CONFIG.trial), read_row(root, "trials", CONFIG.trial)
    for evaluation, end in ((CURVE, ""), (INITIAL, "_initial")):
        _, whole = of(rows, evaluation)
        assert whole["m"] == 30
        assert whole["geodesic_excess"] == pytest.approx(row[f"geodesic_excess{end}"], rel=1e-4)
        assert whole["length_ratio"] == row[f"curve_length_ratio{end}"]
    assert json.loads(row["evaluations"]) == {"curve": {"points": 1000}}
    assert storage.list_files(root, places.PENDING) == []


def test_a_trial_that_is_done_gets_its_curve_later_and_from_fewer_points(trained, monkeypatch):
    root = trained(1000)
    handover.finish(root, CONFIG.trial, threads=1)
    before = read_row(root, "trials", CONFIG.trial)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "leave_curve", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(20)
    assert read_row(root, "trials", CONFIG.trial) == before
    trained(20)
    handover.finish(root, CONFIG.trial, threads=1)
    after = read_row(root, "trials", CONFIG.trial)
    assert (before["curve_m"], after["curve_m"]) == (30, 20)
    changed = {name for name in after if after[name] != before[name]}
    assert {n for n in changed if not n.startswith("curve_")} == {"evaluations", "scored_at"}
    assert storage.list_files(root, places.PENDING) == []


def test_a_command_ends_with_the_curve_next_to_its_baselines(trained, tmp_path):
    root = str(tmp_path)
    folder.claim(root, sweep.Sweep("tiny", "", [CONFIG], sweep.Resources(), "tiny"))
    assert curve_table(folder.inspect(root)) is None
    trained(20)
    handover.finish(root, CONFIG.trial, threads=1)
    shown = io.StringIO()
    Console(file=shown, width=120).print(curve_table(folder.inspect(root)))
    told, head, row = shown.getvalue().splitlines()
    assert told.startswith("curve of measures: its W2 length over the geodesic's")
    assert head.split() == [
        *("trial", "length", "initial", "speed", "var.", "initial"),
        *("block", "OTS", "initial", "shuffled", "m"),
    ]
    found = read_row(root, "trials", CONFIG.trial)
    assert row.split()[-8:-6] == [
        f"{found[f'curve_length_ratio{end}']:.2f}" for end in ("", "_initial")
    ]
    assert row.split()[-1] == "20"


def test_a_number_is_short_for_points():
    assert Evaluations.model_validate({"curve": 500}).asked() == {"curve": {"points": 500}}
    assert read(["curve"], ["curve.points=500"])["curve"] == {"points": 500}
    assert read(["curve"])["curve"] == {"points": 1000}
    for wrong in (1, 2.5, True, "500", [500], {"points": 1}):
        with pytest.raises(ValueError, match="curve"):
            Evaluations.model_validate({"curve": wrong})


def test_problems_are_made_block_by_block():
    found = [place for place, _ in curve_problems(made(("plain", "fully connected")), 10)]
    order = (1, 2, 3, 4, 0)
    assert found == [Place(name, 1, block) for name in (CURVE, INITIAL) for block in order]
