"""Labels of trials: different trials have different ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_jobs import sweep
from tune_jobs.labels import labels, unclear

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, 1.0, 0.1, 0.1000000001, 1e-7, 1.00000001]),
    st.sampled_from(["a", "a ", "True", "True ", "None", "a\nb", "'a'", "x=1"]),
)


def called(**fields):
    content = {"name": "x", "architecture": "torchvision:resnet18", **fields}
    return list(labels(sweep.read(content).trials).values())


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1, 2], ["1", "2"]),
        ([0.1, 1e-5], ["0.1", "1e-05"]),
        ([1, 1.0], ["1", "1.0"]),
        ([0.1, 0.1000000001], ["0.1", "0.1000000001"]),
        (["True", True], ["'True'", "True"]),
        ([True, 1], ["True", "1"]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_values_that_look_alike_are_written_exactly(values, wanted):
    assert called(**{"model.a": values}) == [f"model.a={text}" for text in wanted]


def test_a_trial_alone_is_labelled_as_among_the_others():
    """A search suggests them one by one."""
    content = {"name": "x", "architecture": "torchvision:resnet18", "model.a": [1, 1.0, True]}
    trials = sweep.read(content).trials
    exact = unclear(trials, ["model.a"])
    alone = [name for one in trials for name in labels([one], ["model.a"], exact).values()]
    assert alone == [*labels(trials).values()] == ["model.a=1", "model.a=1.0", "model.a=True"]


def test_a_field_of_the_trial_is_written_exactly_too():
    assert called(gamma=[0.1, 0.1 + 1e-9]) == ["gamma=0.1", "gamma=0.100000001"]


@given(st.lists(SCALARS, min_size=2, max_size=5))
def test_different_trials_have_different_labels(values):
    found = called(**{"model.a": values})
    assert len({*found}) == len(found)
    assert all(text.isprintable() for text in found)
