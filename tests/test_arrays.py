"""Points of any layout have the same scores: strides, byte orders, precisions, tensors, lists."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from scoring.arrays import floats, labels, together
from scoring.energy import (
    StraightDistance,
    energy_ratio,
    kinetic_energy,
    straight_distance,
    turning,
)
from scoring.geodesic import action, geodesic_excess, wasserstein_curve
from scoring.line_shape import LineShape, line_shape_ratio, line_shape_score, segment_shares
from scoring.projection import project
from scoring.separation import Separation, track_distance
from scoring.stages import geometry, measure
from scoring.transport import class_scores, optimal_transport_score


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def unaligned(x):
    raw = np.zeros(x.nbytes + 1, np.uint8)
    view = raw[1:].view(x.dtype) if x.size else x.ravel()
    view[:] = x.ravel()
    return view.reshape(x.shape)


def field(x):
    """A field of records of nine bytes: strides that are no multiple of an element."""
    records = np.zeros(x.shape, [("flag", "u1"), ("value", "f8")])
    records["value"] = x
    return records["value"]


def reversed_view(x):
    index = tuple(slice(None, None, -1) for _ in x.shape)
    return np.ascontiguousarray(x[index])[index]


LAYOUTS = {
    "reversed": reversed_view,
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "big-endian": lambda x: x.astype(">f8"),
    "Fortran": np.asfortranarray,
    "read-only": read_only,
    "broadcast": lambda x: np.broadcast_to(x, x.shape),
    "unaligned": unaligned,
    "field": field,
    "long double": lambda x: x.astype(np.longdouble),
    "objects": lambda x: x.astype(object),
    "list": lambda x: x.tolist(),
    "list of arrays": list,
    "list of tensors": lambda x: [torch.from_numpy(part.copy()) for part in x],
    "list of both": lambda x: [
        torch.from_numpy(part.copy()) if i % 2 else part for i, part in enumerate(x)
    ],
    "tensor": lambda x: torch.from_numpy(x.copy()),
    "tensor with a gradient": lambda x: torch.from_numpy(x.copy()).requires_grad_(),
    "transposed tensor": lambda x: (
        torch.from_numpy(x.T.copy()).T
        if x.ndim == 2
        else torch.from_numpy(x.transpose(2, 1, 0).copy()).permute(2, 1, 0)
    ),
}
SINGLE = {  # the values below are exact in these precisions as well
    "float16": lambda x: x.astype(np.float16),
    "float32": lambda x: x.astype(np.float32),
    "big-endian float32": lambda x: x.astype(">f4"),
    "half tensor": lambda x: torch.from_numpy(x.copy()).half(),
    "bfloat16 tensor": lambda x: torch.from_numpy(x.copy()).bfloat16(),
}
WHOLE = {  # eighths times 8
    "int8": lambda x: (8 * x).astype(np.int8),
    "big-endian int32": lambda x: (8 * x).astype(">i4"),
    "integer tensor": lambda x: torch.from_numpy(8 * x).int(),
    "integer list": lambda x: (8 * x).astype(int).tolist(),
}
everywhere = pytest.mark.parametrize("layout", [*LAYOUTS, *SINGLE, *WHOLE])


@st.composite
def tracks(draw):
    """Tracks (n + 1, m, d) of eighths, at most 2 in size."""
    n, m, d = draw(array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=5))
    return draw(arrays("int64", (n, m, d), elements=st.integers(-16, 16))) / 8.0


def scores(track, states, x, y, classes):
    """Every score of a track, given whole, by its states, and by its ends."""
    shape, separation = LineShape(), Separation()
    straight = StraightDistance(states[0], states[-1], len(states) - 1)
    for state in states:
        shape.update(state)
        separation.update(state)
        straight.update(state)
    energy = kinetic_energy(track)
    solved = optimal_transport_score(x, y)
    found = {
        "lss": line_shape_score(track),
        "lsr": line_shape_ratio(track),
        "shares": segment_shares(track),
        "points": shape.points().ratio,
        "energy": energy,
        "ratio": energy_ratio(energy, list(energy)),
        "straight": straight_distance(track),
        "away": straight.distances(),
        "turning": turning(track),
        "distance": track_distance(track)[0],
        "bound": separation.bound(),
        "separated": list(separation.figures(classes).values()),
        "projected": project(x),
        "action": np.hstack([np.ravel(part) for part in action(track)]),
        "excess": list(geodesic_excess(track)),
        "curve": wasserstein_curve(track).speeds,
        "ots": [solved.ots, solved.network_cost, solved.optimal_cost],
        "by_class": class_scores(solved, classes),
    }
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


@pytest.mark.slow
@everywhere
@pytest.mark.parametrize("shape", [(2, 2, 1), (4, 6, 5)])
def test_scores_do_not_depend_on_the_layout(layout, shape):
    track = np.random.default_rng(shape).integers(-16, 17, size=shape) / 8.0
    classes = np.arange(track.shape[1]) % 2
    change = (LAYOUTS | SINGLE | WHOLE)[layout]
    scale = 8.0 if layout in WHOLE else 1.0
    wanted = scores(scale * track, scale * track, scale * track[0], scale * track[-1], classes)
    states = [change(state) for state in track]
    found = scores(change(track), states, states[0], states[-1], classes)
    for name, value in found.items():
        precise = layout not in SINGLE or name not in (
            "ots",
            "by_class",
            "excess",
            "curve",
            "action",
        )
        tolerance = {"rtol": 1e-12, "atol": 1e-12} if precise else {"rtol": 1e-5, "atol": 1e-4}
        np.testing.assert_allclose(value, wanted[name], **tolerance, err_msg=name)


@settings(max_examples=20)
@given(track=tracks(), data=st.data())
def test_states_of_a_track_may_have_different_layouts(track, data):
    pick = st.sampled_from(list(LAYOUTS.values()))
    classes = np.arange(track.shape[1]) % 2
    wanted = scores(track, track, track[0], track[-1], classes)
    states = [data.draw(pick)(state) for state in track]
    found = scores(track, states, states[0], states[-1], classes)
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("change", LAYOUTS.values(), ids=LAYOUTS)
def test_a_walk_may_yield_any_layout(change):
    track = np.random.default_rng(0).integers(-16, 17, size=(4, 6, 5)) / 8.0

    def walk_with(layout):
        return lambda batch: ((1, layout(state[batch.numpy()])) for state in track)

    batches = torch.arange(6).split(4)
    wanted = measure(walk_with(torch.from_numpy), batches, transport=True)[0].row()
    found = measure(walk_with(change), batches, transport=True)[0].row()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)
    apart = geometry(walk_with(torch.from_numpy), batches, [0, 1] * 3)[0]
    for name, value in geometry(walk_with(change), batches, [0, 1] * 3)[0].items():
        np.testing.assert_allclose(value, apart[name], rtol=1e-6, atol=1e-12, err_msg=name)


LABELS = {
    "uint64": lambda y: y.astype(np.uint64),
    "big-endian": lambda y: y.astype(">i2"),
    "reversed": reversed_view,
    "read-only": read_only,
    "float": lambda y: y.astype(np.float32),
    "bool": lambda y: y.astype(bool),
    "list": lambda y: y.tolist(),
    "tensor": torch.from_numpy,
    "byte tensor": lambda y: torch.from_numpy(y).byte(),
}


@pytest.mark.parametrize("change", LABELS.values(), ids=LABELS)
def test_labels_may_have_any_type(change):
    draw = np.random.default_rng(1)
    x, y, classes = draw.normal(size=(30, 3)), draw.normal(size=(30, 3)), np.arange(30) % 2
    separation = Separation()
    for state in (x, y):
        separation.update(state)
    assert separation.figures(change(classes)) == separation.figures(classes)
    solved = optimal_transport_score(x, y)
    np.testing.assert_array_equal(
        class_scores(solved, change(classes)), class_scores(solved, classes)
    )


@pytest.mark.parametrize(
    "values",
    [
        np.array([[1j, 2], [3, 4]]),
        torch.tensor([[1j, 2], [3, 4]]),
        np.array([["a", "b"], ["c", "d"]]),
        np.array([["2026-01-01"], ["2026-01-02"]], dtype="M8[D]"),
        [[1.0, 2.0], [3.0]],
        [torch.zeros(2), torch.zeros(3)],
        [{}, {}],
    ],
    ids=lambda values: str(getattr(values, "dtype", "list")),
)
def test_what_is_no_array_of_real_numbers_is_refused_with_a_value_error(values):
    for score in (line_shape_score, kinetic_energy, track_distance, project, floats):
        with pytest.raises(ValueError, match=r"\w"):
            score(values)
    with pytest.raises(ValueError, match=r"\w"):
        optimal_transport_score(values, values)


@pytest.mark.parametrize("values", [np.array([0.5, 1.0]), ["a", "b"], np.array([1j])])
def test_labels_that_are_no_whole_numbers_are_refused(values):
    with pytest.raises(ValueError, match="whole numbers"):
        labels(values)


def test_an_array_that_torch_can_share_is_not_copied():
    for x in (np.zeros((3, 4)), np.zeros((3, 4), np.float16), np.asfortranarray(np.ones((3, 4)))):
        assert floats(x) is x or np.shares_memory(floats(x), x)
    tensor = torch.zeros(3, 4)
    assert floats(tensor).data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize("double", [False, True])
def test_points_of_two_precisions_are_compared_in_the_higher_one(double):
    x = np.zeros((2, 2), np.float32)
    y = torch.zeros(2, 2, dtype=torch.float64 if double else torch.float16)
    for a, b in (together(x, y), together(y, x)):
        assert a.dtype == b.dtype == (torch.float64 if double else torch.float32)
    a, b = together(x, np.zeros((2, 2), np.float64 if double else np.float16))
    assert a.dtype == b.dtype == (np.float64 if double else np.float32)
