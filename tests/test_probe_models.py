"""The probe on networks of this package, torchvision, timm and transformers.

It is compared with a reference that stores every state: hooks on blocks that are named here by
hand, and the functions for whole tracks.
"""

from collections import defaultdict

import numpy as np
import pytest
import torch
import torchvision
from numpy.testing import assert_allclose, assert_array_equal

from models.config import TrialConfig
from models.network import build
from scoring.energy import kinetic_energy, turning
from scoring.line_shape import line_shape_ratio, line_shape_score, segment_shares
from scoring.probe import TrackProbe
from scoring.stages import measure
from scoring.transport import optimal_transport_score

TORCHVISION = {  # name -> settings, side of an image, stages of blocks by name
    "resnet18": (
        {},
        64,
        [["layer1.0", "layer1.1"], ["layer2.1"], ["layer3.1"], ["layer4.1"]],
    ),
    "resnet50": (
        {},
        32,
        [[f"layer{k}.{i}" for i in range(1, n)] for k, n in ((1, 3), (2, 4), (3, 6), (4, 3))],
    ),
    "wide_resnet50_2": (
        {},
        32,
        [[f"layer{k}.{i}" for i in range(1, n)] for k, n in ((1, 3), (2, 4), (3, 6), (4, 3))],
    ),
    "convnext_tiny": (
        {},
        32,
        [[f"features.{k}.{i}" for i in range(n)] for k, n in ((1, 3), (3, 3), (5, 9), (7, 3))],
    ),
    "vit_b_16": (
        {"image_size": 32},
        32,
        [[f"encoder.layers.encoder_layer_{i}" for i in range(12)]],
    ),
    "swin_t": (
        {},
        32,
        [[f"features.{k}.{i}" for i in range(n)] for k, n in ((1, 2), (3, 2), (5, 6), (7, 2))],
    ),
}


def stored_tracks(model, stages, run):
    """Tracks (n + 1, m, d) of stages of named blocks, with every state of every batch stored."""
    inputs, outputs = defaultdict(list), defaultdict(list)

    def first(value):
        while not isinstance(value, torch.Tensor):
            value = value[0] if isinstance(value, tuple) else next(iter(value.values()))
        return value.detach().clone().flatten(1)

    def keep(name):
        def hook(_, args, kwargs, output):
            inputs[name].append(first(args or kwargs))
            outputs[name].append(first(output))

        return hook

    handles = [
        model.get_submodule(name).register_forward_hook(keep(name), with_kwargs=True)
        for names in stages
        for name in names
    ]
    run()
    for handle in handles:
        handle.remove()
    return [
        torch.stack([torch.cat(inputs[names[0]]), *(torch.cat(outputs[name]) for name in names)])
        for names in stages
    ]


def compare(model, stages, run, **settings):
    """Probe a model with ``auto`` and compare every stage with its stored track."""
    tracks = stored_tracks(model, stages, run)
    with TrackProbe(model, **settings) as probe:
        run()
    found = probe.result.stages
    assert [list(stage.blocks) for stage in found] == stages
    for stage, track in zip(found, tracks, strict=True):
        points, row = stage.points, stage.row()
        assert_allclose(points.score, line_shape_score(track), rtol=1e-12)
        assert_allclose(points.ratio, line_shape_ratio(track), rtol=1e-12)
        assert_allclose(row["shares"], segment_shares(track), rtol=1e-12)
        assert_allclose(row["energy"], kinetic_energy(track), rtol=1e-12)
        assert_allclose(row["cosines"], turning(track).mean(1), rtol=1e-9, atol=1e-12)
        some = track[:, : stage.rank_points].double()  # the first batch
        centred = some - some.mean(1, keepdim=True)
        for rank, state in zip(stage.effective_rank, centred, strict=True):
            shares = torch.linalg.svdvals(state)
            shares = shares / shares.sum()
            assert_allclose(rank, torch.special.entr(shares).sum().exp(), rtol=1e-5)
        if settings.get("transport"):
            solved = optimal_transport_score(track[0], track[-1])
            assert row["ots"] == solved.ots
            assert_allclose(row["gap"], solved.gap, rtol=1e-5)
    return probe.result


@pytest.mark.parametrize("network", ["plain", "resnet"])
@pytest.mark.parametrize("stages", [1, 2])
def test_a_network_of_this_package_gives_what_its_own_states_give(network, stages):
    config = TrialConfig(dataset="digits", network=network, stages=stages)
    model = build(config, (1, 8, 8), 10).eval()
    batches = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(0)).split(4)
    wanted = measure(model.states, batches, transport=True)
    with torch.no_grad(), TrackProbe(model, r"stages\.\d+\.\d+", transport=9) as probe:
        for batch in batches:
            model(batch)
    assert len(probe.result.stages) == len(wanted) == stages
    for stage, other in zip(probe.result.stages, wanted, strict=True):
        for name in ("score", "inverse_score", "ratio", "shares", "lengths", "cosines"):
            assert_array_equal(getattr(stage.points, name), getattr(other, name))
        assert_allclose(stage.points.projected, other.projected, rtol=1e-9)
        row = stage.row()
        for name, value in other.row().items():
            if name != "projected":
                assert_allclose(row[name], value, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_a_network_of_torchvision_gives_what_its_stored_states_give(name):
    settings, side, stages = TORCHVISION[name]
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None, **settings).eval()
    batches = torch.randn(5, 3, side, side).split(3)

    @torch.no_grad()
    def run():
        for batch in batches:
            model(batch)

    compare(model, stages, run, transport=5 if name == "resnet18" else 0)


TIMM = {
    "resnet18": [["layer1.0", "layer1.1"], ["layer2.1"], ["layer3.1"], ["layer4.1"]],
    "vit_tiny_patch16_224": [[f"blocks.{i}" for i in range(12)]],
    "convnext_atto": [
        [f"stages.{k}.blocks.{i}" for i in range(n)] for k, n in enumerate((2, 2, 6, 2))
    ],
}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_a_network_of_timm_gives_what_its_stored_states_give(name):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    settings = {"img_size": 32} if "vit" in name else {}
    model = timm.create_model(name, pretrained=False, **settings).eval()
    batches = torch.randn(5, 3, 32, 32).split(3)

    @torch.no_grad()
    def run():
        for batch in batches:
            model(batch)

    compare(model, TIMM[name], run)


SMALL = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
WIDE = {**SMALL, "intermediate_size": 32, "max_position_embeddings": 32}
TRANSFORMERS = {  # class -> settings, stages
    "GPT2": (
        {"vocab_size": 99, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32},
        [[f"h.{i}" for i in range(3)]],
    ),
    "Llama": ({**WIDE, "num_key_value_heads": 2}, [[f"layers.{i}" for i in range(3)]]),
    "Mistral": ({**WIDE, "num_key_value_heads": 2}, [[f"layers.{i}" for i in range(3)]]),
    "Bert": (WIDE, [[f"encoder.layer.{i}" for i in range(3)]]),
    "T5": (
        {"vocab_size": 99, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2},
        [[f"encoder.block.{i}" for i in range(3)], [f"decoder.block.{i}" for i in range(3)]],
    ),
    "Bart": (
        {
            "vocab_size": 99,
            "d_model": 16,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_position_embeddings": 32,
        },
        [[f"encoder.layers.{i}" for i in range(3)], [f"decoder.layers.{i}" for i in range(2)]],
    ),
    "Mixtral": (
        {**WIDE, "num_key_value_heads": 2, "num_local_experts": 2},
        [[f"layers.{i}" for i in range(3)]],
    ),
}


def transformer(name):
    """A small model of transformers with random weights."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**TRANSFORMERS[name][0])
    return getattr(transformers, f"{name}Model")(config).eval()


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_model_of_transformers_gives_what_its_stored_states_give(name):
    model, stages = transformer(name), TRANSFORMERS[name][1]
    batches = torch.randint(5, 99, (5, 7), generator=torch.Generator().manual_seed(0)).split(3)
    decoder = {"decoder_input_ids": 0} if len(stages) > 1 else {}

    @torch.no_grad()
    def run():
        for batch in batches:
            model(input_ids=batch, **({"decoder_input_ids": batch[:, 2:]} if decoder else {}))

    result = compare(model, stages, run)
    assert np.isfinite(result.frame().lss).all()
