"""Where scorers are placed."""

from scoring.actors import places


def node(name, gpus=0, alive=True, cpus=8):
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": float(cpus), "GPU": gpus}}


def test_scorers_go_to_nodes_without_a_gpu_if_there_are_any():
    assert places([node("head"), node("accelerator", gpus=4), node("cpu")]) == {"head": 8, "cpu": 8}


def test_scorers_share_nodes_with_gpus_where_there_are_no_others():
    assert places([node("one", gpus=1), node("two", gpus=2)]) == {"one": 8, "two": 8}


def test_a_node_gets_a_scorer_for_each_of_its_cpus_up_to_eight_and_at_least_one():
    assert places([node("small", cpus=2), node("head", cpus=0), node("large", cpus=96)]) == {
        "small": 2,
        "head": 1,
        "large": 8,
    }


def test_dead_nodes_get_no_scorer():
    assert places([node("gone", alive=False), node("here")]) == {"here": 8}
