"""Measuring all stages of a network in one pass over its data, batch by batch."""

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scoring import handover, schemas
from scoring.energy import kinetic_energy, straight_distance, turning
from scoring.excess import excess, without_drift
from scoring.geodesic import action
from scoring.line_shape import line_shape_ratio, line_shape_score, segment_shares
from scoring.projection import SHOWN, project, projection
from scoring.rows import GEOMETRIC, has_all_scores
from scoring.separation import Separation
from scoring.stages import geometry, measure
from scoring.tables import read_row, read_table, write_table
from scoring.transport import optimal_transport_score, solve

POINTS = 12
SHAPES = {1: (2, 4, 4), 2: (3, 2, 2)}  # stage -> shape of its states


def tracks():
    """Tracks (n + 1, m, c, h, w) of two stages with 3 blocks each, float32."""
    draw = torch.Generator().manual_seed(0)
    return {k: torch.randn(4, POINTS, *shape, generator=draw) for k, shape in SHAPES.items()}


def walk_of(tracks):
    """What a network does, for points given by their number."""

    def walk(points):
        for stage, track in tracks.items():
            for state in track:
                yield stage, state[points]

    return walk


def test_each_stage_has_the_scores_of_its_own_track():
    both = tracks()
    stages = measure(walk_of(both), torch.arange(POINTS).split(5))
    assert [s.stage for s in stages] == [1, 2]
    assert [s.dimension for s in stages] == [32, 12]
    for stage in stages:
        track = both[stage.stage].flatten(2)
        assert_allclose(stage.score, line_shape_score(track), rtol=1e-12)
        assert_allclose(stage.ratio, line_shape_ratio(track), rtol=1e-12)
        assert_allclose(stage.inverse_score, 1 / line_shape_score(track), rtol=1e-12)
        assert_allclose(stage.shares.mean(1), segment_shares(track), rtol=1e-12)
        assert stage.problem is None
        assert_allclose(stage.row()["energy"], kinetic_energy(track), rtol=1e-12)
        assert_allclose(stage.row()["cosines"], turning(track).mean(1), rtol=1e-12)
        curvature = turning(track).acos().mean().rad2deg()
        assert_allclose(stage.row()["curvature"], curvature, rtol=1e-12)
        points = track.transpose(0, 1).tolist()
        lengths = [[reference.length(v) for v in reference.steps(point)] for point in points]
        spacing = [np.std(one) / np.mean(one) for one in lengths]
        assert_allclose(stage.row()["spacing"], np.mean(spacing), rtol=1e-12)
        steps = action(track, transport=False)
        assert_allclose(stage.row()["drift"], steps.drift, rtol=1e-12)
        for name, part in (("", steps), ("_without_drift", without_drift(steps))):
            wanted = excess(part).straightness
            assert_allclose(stage.row()[f"straightness_factor{name}"], wanted, rtol=1e-12)


def test_transport_is_between_the_inputs_and_the_outputs_of_a_stage():
    both = tracks()
    for stage in measure(walk_of(both), torch.arange(POINTS).split(5), transport=True):
        track = both[stage.stage].flatten(2)
        wanted, result = optimal_transport_score(track[0], track[-1]), solve(stage.problem)
        assert_array_equal(result.permutation, wanted.permutation)
        assert_allclose(result.own_cost, wanted.own_cost, rtol=1e-12)
        assert_allclose(result.optimal_cost, wanted.optimal_cost, rtol=1e-5)


@given(st.lists(st.integers(1, POINTS - 1), max_size=5, unique=True))
def test_how_the_points_are_split_into_batches_changes_nothing(cuts):
    walk = walk_of(tracks())
    batches = torch.arange(POINTS).tensor_split(sorted(cuts))
    whole = measure(walk, [torch.arange(POINTS)], transport=True)
    for one, other in zip(whole, measure(walk, batches, transport=True), strict=True):
        assert_allclose(other.score, one.score, rtol=1e-12)
        assert_allclose(other.ratio, one.ratio, rtol=1e-12)
        assert_allclose(other.shares, one.shares, rtol=1e-12)
        for a, b in zip(one.problem, other.problem, strict=True):
            assert_array_equal(b, a)
        for name, value in one.row().items():
            assert_allclose(other.row()[name], value, rtol=1e-12)


def test_no_batch_is_walked_before_the_one_before_it_is_done():
    events = []

    def batches():
        for start in range(0, POINTS, 4):
            events.append(f"batch {start}")
            yield torch.arange(start, start + 4)

    def walk(points):
        for stage_and_state in walk_of(tracks())(points):
            events.append("state")
            yield stage_and_state

    measure(walk, batches())
    assert events == [e for s in (0, 4, 8) for e in [f"batch {s}", *["state"] * 8]]


def test_states_are_measured_in_full_precision_under_autocast():
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    types = []

    def walk(x):
        for _ in range(3):
            yield 1, x
            x = x + 1e-3 * (x @ weight)
            types.append(x.dtype)

    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    (wanted,) = measure(walk, [x])
    with torch.autocast("cpu", torch.bfloat16):
        (stage,) = measure(walk, [x])
    assert set(types) == {torch.float32}
    assert_array_equal(stage.score, wanted.score)


def test_a_row_holds_columns_of_the_tracks_table_and_can_be_stored(tmp_path):
    stages = measure(walk_of(tracks()), torch.arange(POINTS).split(5))
    columns = {field.name: field for field in schemas.TRACKS}
    rows = [stage.row() for stage in stages]
    assert set(rows[0]) <= set(columns)
    write_table(str(tmp_path), "tracks", "a", rows)
    stored = read_table(str(tmp_path), "tracks", list(rows[0])).to_pylist()
    assert stored == rows
    assert (rows[0]["blocks"], rows[0]["m"], rows[0]["dimension"]) == (3, POINTS, 32)
    assert_allclose(rows[0]["lss_random"], math.sqrt(3))
    assert_allclose(rows[0]["lss"], stages[0].score.mean())
    assert_allclose(rows[0]["lsr_std"], stages[0].ratio.std())
    assert_allclose(sum(rows[0]["shares"]), 1)


def test_still_points_are_counted_and_in_no_mean():
    track = torch.zeros(4, 3, 2)  # the first point stands still, the second once
    track[:, 1] = torch.tensor([0.0, 1.0, 1.0, 3.0])[:, None]
    track[:, 2] = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    (stage,) = measure(walk_of({1: track}), [torch.arange(3)])
    row = stage.row()
    assert (row["still_points"], row["zero_segments"]) == (1, 1)
    assert_allclose(row["lss"], (1 + 3 / math.sqrt(5)) / 2)
    assert_allclose(row["lsr"], (1 + 3 / math.sqrt(5)) / 2)
    assert_allclose(row["shares"], [1 / 3, 1 / 6, 1 / 2])


def test_a_turn_at_a_zero_segment_is_in_no_mean_and_a_still_point_in_the_mean_energy():
    track = torch.zeros(4, 3, 2)  # as above
    track[:, 1] = torch.tensor([0.0, 1.0, 1.0, 3.0])[:, None]
    track[:, 2] = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    row = measure(walk_of({1: track}), [torch.arange(3)])[0].row()
    assert_allclose(row["energy"], [3 / 3, 1 / 3, 9 / 3])
    assert_allclose(row["cosines"], [0, 1])
    still = measure(walk_of({1: track[:, :1]}), [torch.arange(1)])[0].row()
    assert still["energy"] == [0, 0, 0]
    assert np.isnan(still["cosines"]).all()


def test_a_stage_of_one_block_has_no_turns():
    row = measure(walk_of({1: tracks()[1][:2]}), [torch.arange(POINTS)])[0].row()
    assert (len(row["energy"]), row["cosines"]) == (1, [])


def test_geometry_is_that_of_the_whole_track_of_each_stage():
    both, labels = tracks(), torch.arange(POINTS) % 3
    rows = geometry(walk_of(both), torch.arange(POINTS).split(5), labels)
    for row, track in zip(rows, both.values(), strict=True):
        track = track.flatten(2)
        assert_allclose(row["straight_distance"], straight_distance(track).mean(1), rtol=1e-12)
        separation = Separation()
        for state in track:
            separation.update(state)
        figures = separation.figures(labels)
        assert {name: row[name] for name in figures} == figures
        assert {*figures, "straight_distance", "lss_scaled", "fuzziness"} < set(row)
        assert row["separation_m"] == POINTS
        assert not any(math.isnan(value) for value in figures.values())


@given(st.lists(st.integers(1, POINTS - 1), max_size=5, unique=True))
def test_geometry_is_the_same_however_its_points_are_split_into_batches(cuts):
    walk, labels = walk_of(tracks()), np.arange(POINTS) % 2
    whole = geometry(walk, [torch.arange(POINTS)], labels)
    split = geometry(walk, torch.arange(POINTS).tensor_split(sorted(cuts)), labels)
    for one, other in zip(whole, split, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            assert_allclose(other[name], value, rtol=1e-12, atol=1e-12)


def test_states_that_are_not_finite_have_no_geometry_but_a_row(tmp_path):
    both = tracks()
    both[1][2, 3] = math.nan
    both[1][3, 3] = math.inf
    rows = geometry(walk_of(both), torch.arange(POINTS).split(5), np.arange(POINTS) % 2)
    scored = [stage.row() for stage in measure(walk_of(both), torch.arange(POINTS).split(5))]
    broken, fine = (row | more for row, more in zip(scored, rows, strict=True))
    for name in ("separated", "separated_same", "separation_ratio_different", "not_monotone"):
        assert math.isnan(broken[name])
        assert not math.isnan(fine[name])
    assert not any(map(math.isfinite, broken["straight_distance"]))
    assert np.isnan(broken["energy"]).tolist() == [False, True, True]
    assert_allclose(fine["straight_distance"][0], 0)
    write_table(str(tmp_path), "tracks", "a", [broken, fine])


def test_a_network_in_which_nothing_moves_has_no_scores():
    (stage,) = measure(walk_of({1: torch.ones(3, 2, 2)}), [torch.arange(2)], transport=True)
    row = stage.row()
    assert row["still_points"] == row["m"] == 2
    assert all(math.isnan(row[name]) for name in ("lss", "lss_std", "inverse_lss", "lsr"))
    assert np.isnan(row["shares"]).all()
    assert stage.problem.collapsed


def test_one_point_that_turns_back_leaves_the_mean_of_one_over_lss_finite():
    track = torch.tensor([[[0.0], [0.0]], [[1.0], [1.0]], [[0.0], [2.0]]])
    row = measure(walk_of({1: track}), [torch.arange(2)])[0].row()
    assert row["lss"] == math.inf
    assert_allclose(row["inverse_lss"], 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_stage_whose_states_are_not_finite_has_no_assignment(value, place):
    both = {1: torch.randn(3, 4, 2), 2: torch.randn(3, 4, 2)}
    both[2][place, 1, 0] = value
    fine, broken = measure(walk_of(both), torch.arange(4).split(3), transport=True)
    assert (fine.finite, broken.finite) == (True, False)
    assert [stage.problem is None for stage in (fine, broken)] == [False, True]


def handed_over(root, rows, problems):
    """A trial of two epochs whose rows of the tracks table are these, handed over."""
    key = {"trial": "a", "dataset": "digits", "network": "plain", "stages": 2}
    summary = key | {"gamma": 0.0, "seed": 0, "status": "done"}
    moment = "2026-01-01T00:00:00+00:00"
    summary["started_at"] = moment
    losses = {field.name: 1.0 for field in schemas.LOSSES}
    times = {"seconds": 1.0, "finished_at": moment}
    epochs = [{"epoch": epoch} | losses | times for epoch in (0, 1)]
    labels = np.zeros(len(problems[0].score), dtype=np.int64)
    history = {"summary": summary, "epochs": epochs, "tracks": rows}
    handover.leave_initial(root, "a", problems)
    handover.leave_final(root, "a", problems, labels, labels, history)
    handover.finish(root, "a")
    return read_row(root, "trials", "a")


def test_a_trial_has_the_means_over_its_stages_and_their_nulls(tmp_path):
    batches = torch.arange(POINTS).split(5)
    rows, stages = [], []
    for epoch, scale in ((0, 1.0), (1, 2.0)):
        walk = walk_of({k: scale * track for k, track in tracks().items()})
        stages = measure(walk, batches, transport=True)
        pairs = zip(stages, geometry(walk, batches, np.arange(POINTS) % 2), strict=True)
        rows += [{"epoch": epoch} | stage.row() | more for stage, more in pairs]
    trial = handed_over(str(tmp_path), [dict(row) for row in rows], stages)
    energies = [sum(row["energy"]) for row in rows]
    assert_allclose(trial["energy_initial"], np.mean(energies[:2]))
    assert_allclose(trial["energy"], 4 * trial["energy_initial"])
    for name, values in {
        "turning": [np.mean(row["cosines"]) for row in rows],
        "separated": [row["separated"] for row in rows],
        "not_monotone": [row["not_monotone"] for row in rows],
        "lss_scaled": [row["lss_scaled"] for row in rows],
        "lss_without_drift": [row["lss_without_drift"] for row in rows],
        "relative_energy": [sum(row["relative_energy"]) for row in rows],
        "effective_rank": [row["effective_rank"][-1] for row in rows],
        "curvature": [row["curvature"] for row in rows],
        "spacing": [row["spacing"] for row in rows],
    }.items():
        assert_allclose(trial[f"{name}_initial"], np.mean(values[:2]))
        assert_allclose(trial[name], np.mean(values[2:]))
    assert (trial["nc1_initial"], trial["nc1"]) == (
        rows[1]["nc1"],
        rows[3]["nc1"],
    )  # the last stage
    stored = read_table(str(tmp_path), "tracks").to_pylist()
    assert stored[-1]["lss_scaled_initial"] == rows[1]["lss_scaled"]
    assert stored[-1]["straight_distance"] == rows[-1]["straight_distance"]
    assert stored[-1]["separation_m"] == POINTS


def test_the_excess_and_the_shuffled_ots_of_a_stage_and_of_a_trial_are_those_of_plain_loops(
    tmp_path,
):
    draw = torch.Generator().manual_seed(5)
    both = {k: torch.randn(4, 6, 3, generator=draw).cumsum(0) + 2 * k for k in (1, 2)}
    stages = measure(walk_of(both), torch.arange(6).split(4), transport=True)
    rows = [{"epoch": epoch} | stage.row() for epoch in (0, 1) for stage in stages]
    trial = handed_over(str(tmp_path), rows, stages)
    wanted = []
    for row in read_table(str(tmp_path), "tracks").to_pylist():
        points = both[row["stage"]].double().transpose(0, 1).tolist()
        factors = reference.geodesic_excess(points)
        moved = reference.geodesic_excess(reference.without_drift(points))
        wanted.append([*factors, *moved])
        assert_allclose([row[name] for name in GEOMETRIC[::2]], factors, rtol=1e-5)
        assert_allclose([row[name] for name in GEOMETRIC[1::2]], moved, rtol=1e-5)
        for name, factor in zip(GEOMETRIC[::2], factors, strict=True):
            assert_allclose(row[f"{name}_initial"], factor, rtol=1e-5)
        x, y = ([track[end] for track in points] for end in (0, -1))
        costs = row["network_cost"], row["optimal_cost"], reference.random_cost(x, y)
        share = (costs[0] - costs[1]) / (costs[2] - costs[1])
        assert_allclose(row["transport_share"], share, rtol=1e-4)
        order = np.random.default_rng([0, row["stage"]]).permutation(6)
        least, best = reference.optimal_matchings(x, reference.shuffled(x, y, order))
        assert row["ots_shuffled"] in [np.mean(np.equal(sigma, range(6))) for sigma in best]
        assert_allclose(row["gap_shuffled"], least / 6 / row["network_cost"], rtol=1e-5)
    means = np.exp(np.log(wanted[:2]).mean(0))
    for number, name in enumerate([*GEOMETRIC[::2], *GEOMETRIC[1::2]]):
        for end in ("", "_initial"):
            assert_allclose(trial[name + end], means[number], rtol=1e-5)
    product = trial["straightness_factor"] * trial["transport_factor"]
    assert_allclose(trial["geodesic_excess"], product)


def test_a_stage_without_a_common_shift_has_the_same_factors_with_drift_and_without():
    track = both_ways(tracks()[1].flatten(2))
    (stage,) = measure(walk_of({1: track}), [torch.arange(2 * POINTS)], transport=True)
    row = stage.row()
    assert_allclose(row["drift"], 0, atol=1e-12)
    assert_allclose(row["straightness_factor"], row["straightness_factor_without_drift"])


def both_ways(track):
    """A track with the mirror image of every point."""
    return torch.cat([track, -track], dim=1)


def test_a_stage_that_collapses_has_a_straightness_but_no_excess(tmp_path):
    track = tracks()[1].clone()
    track[-1] = 1.0
    stages = measure(walk_of({1: track}), [torch.arange(POINTS)], transport=True)
    rows = [{"epoch": epoch} | stages[0].row() for epoch in (0, 1)]
    trial = handed_over(str(tmp_path), rows, stages)
    assert trial["straightness_factor"] > 1
    for name in ("geodesic_excess", "transport_factor", "transport_share", "ots_shuffled"):
        assert math.isnan(trial[name])


def test_a_history_from_before_the_geometry_was_measured_can_be_finished(tmp_path):
    older = ("lss", "inverse_lss", "lsr", "m", "lss_random", "stage", "blocks", "shares")
    stages = measure(walk_of(tracks()), [torch.arange(POINTS)], transport=True)
    rows = [
        {"epoch": epoch} | {name: stage.row()[name] for name in older}
        for epoch in (0, 1)
        for stage in stages
    ]
    trial = handed_over(str(tmp_path), rows, stages)
    for name in ("energy", "turning", "separated", "not_monotone", "geodesic_excess"):
        assert math.isnan(trial[name])
        assert math.isnan(trial[f"{name}_initial"])
    assert not has_all_scores(trial)  # so that they can be added later
    assert_allclose(trial["lss"], np.mean([stage.score.mean() for stage in stages]))


def test_tracks_of_the_first_points_are_kept_in_two_dimensions_whatever_the_batches():
    both = tracks()
    for sizes in (POINTS, 5):
        stages = measure(walk_of(both), torch.arange(POINTS).split(sizes), transport=True)
        for stage in stages:
            track = both[stage.stage].flatten(2)
            wanted = track.double() @ projection(track.shape[2]).T
            assert_allclose(stage.projected, wanted, rtol=1e-12, atol=1e-12)
            kept = np.reshape(stage.row()["projected"], (4, POINTS, 2))
            assert_allclose(kept, wanted, rtol=1e-4)


def test_no_more_points_are_shown_than_a_figure_holds():
    track = torch.randn(3, SHOWN + 30, 4, generator=torch.Generator().manual_seed(1))
    (stage,) = measure(walk_of({1: track}), torch.arange(SHOWN + 30).split(40), transport=True)
    assert_allclose(stage.projected, track[:, :SHOWN].double() @ projection(4).T)
    (plain,) = measure(walk_of({1: track}), [torch.arange(SHOWN)])
    assert plain.projected is None
    assert "projected" not in plain.row()


def test_a_projected_length_has_the_mean_square_of_the_length():
    x = torch.randn(5000, 100, generator=torch.Generator().manual_seed(2))
    assert_allclose(project(x).square().sum(1).mean() / x.square().sum(1).mean(), 1, rtol=0.25)
    assert_array_equal(projection(7), projection(7))


def test_states_in_float64_keep_their_precision_for_the_assignment():
    """Tiny steps far from the origin: the cost of the map is that of the states, not of float32."""
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    track = [x, x + 1e-9, x + 3e-9]
    (stage,) = measure(lambda _: [(1, state) for state in track], [x], transport=True)
    assert_allclose(stage.problem.own.mean(), np.square(stage.distances).mean(), rtol=1e-6)
