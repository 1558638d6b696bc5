"""Where scorers are placed."""

from scoring.actors import places


def node(name, gpus=0, alive=True):
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": 8.0, "GPU": gpus}}


def test_scorers_go_to_nodes_without_a_gpu_if_there_are_any():
    assert places([node("head"), node("accelerator", gpus=4), node("cpu")]) == ["head", "cpu"]


def test_scorers_share_nodes_with_gpus_where_there_are_no_others():
    assert places([node("one", gpus=1), node("two", gpus=2)]) == ["one", "two"]


def test_dead_nodes_get_no_scorer():
    assert places([node("gone", alive=False), node("here")]) == ["here"]
