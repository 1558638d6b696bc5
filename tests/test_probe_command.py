"""``geosweep probe`` as a user sees it, and the examples of its page in the documentation."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from analysis import probe as figures
from scoring.probe import TrackProbe

NET = """
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return x + torch.tanh(self.layer(x))


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), Block(), Block(), Block(), nn.Linear(8, 2))


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())


@dataclass
class Settings:
    width: int = 8


def number():
    return 3


def fails():
    raise KeyError("no such key")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model's file, its weights, other weights, and points."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    names: dict = {}
    exec(NET, names)
    model = names["build"]()
    torch.save(model.state_dict(), "a.pt")
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(2.0)
    torch.save({"state_dict": {f"module.{n}": v for n, v in model.state_dict().items()}}, "b.pt")
    x = np.random.default_rng(0).standard_normal((20, 12), dtype=np.float32)
    np.savez("points.npz", x=x)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch):
    from tune_jobs.probing import output

    monkeypatch.setattr(output, "draw", lambda root: [])


def test_a_model_of_a_file_is_measured_and_written(place, geosweep, undrawn):
    status, said = geosweep(
        "probe", "net.py:build", "--weights", "a.pt", "--data", "points.npz", "--transport", "9"
    )
    assert status == 0
    assert "LSS reinit" in said
    assert "LSS shuffle" in said
    assert "stage 1: 2 to 4" in said
    assert "probe.json, stages.parquet, blocks.parquet in runs/probe-net-build" in said
    names: dict = {}
    exec(NET, names)
    model = names["build"]()
    with torch.no_grad(), TrackProbe(model) as probe:
        model(torch.from_numpy(np.load("points.npz")["x"]))
    (row,) = pd.read_parquet("runs/probe-net-build/stages.parquet").to_dict("records")
    assert_allclose(row["lss"], probe.result.frame().lss[0], rtol=1e-6)
    assert row["transport_points"] == 9
    assert pd.read_parquet("runs/probe-net-build/blocks.parquet").name.tolist() == ["2", "3", "4"]
    content = json.loads(Path("runs/probe-net-build/probe.json").read_text())
    tracks = content["results"]["a.pt"]["tracks"]
    assert np.shape(tracks[0]) == (4, 20, 2)


def test_a_narrow_terminal_gets_a_column_for_each_stage(place, geosweep, undrawn, monkeypatch):
    monkeypatch.setattr("tune_jobs.terminal.WIDEST", 80)  # of the pipe that takes the place of one
    status, said = geosweep("probe", "net.py:build", "--data", "points.npz", "--transport", "9")
    assert status == 0
    lines = [line.split() for line in said.splitlines()]
    assert lines[0] == ["stage", "1"]
    assert ["blocks", "3"] in lines
    assert "…" not in said


def test_the_table_has_columns_that_the_first_stage_lacks(tmp_path, undrawn):
    from tune_jobs.probing.output import write

    class Result:
        stages = ()

        def rows(self):
            return [{"stage": 1}, {"stage": 2, "ots": 0.5}]

        blocks = rows

        def to_dict(self):
            return {}

    write(str(tmp_path), {}, {"w": Result()})
    frame = pd.read_parquet(tmp_path / "stages.parquet")
    assert frame.ots.isna().tolist() == [True, False]


def test_weights_of_a_wrapper_or_of_an_old_version_of_torch_are_taken(tmp_path):
    from tune_jobs.probing.model import _fill

    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = torch.nn.BatchNorm1d(2)

    wrapper = Wrapper()
    state = wrapper.state_dict() | {"module.weight": torch.tensor([3.0, 4.0])}
    del state["module.num_batches_tracked"]
    torch.save(state, tmp_path / "w.pt")
    _fill(wrapper, str(tmp_path / "w.pt"), "--weights")
    assert wrapper.module.weight.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    "start", ["module._orig_mod.", "_orig_mod.module.", "model.module.", "module.module."]
)
def test_names_of_wrappers_around_each_other_are_left_out(tmp_path, start):
    from tune_jobs.probing.model import _fill

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    state = {name: torch.full_like(value, 3.0) for name, value in model.state_dict().items()}
    wrapped = {start + name: value for name, value in state.items()}
    for outer in ("", start.partition(".")[0] + ".", start):
        averaged = {f"{outer}n_averaged": torch.tensor(7)}  # the wrapper that counts
        torch.save({"ema": wrapped | averaged}, tmp_path / "w.pt")
        for filled in (model, torch.compile(model, backend="eager")):
            torch.nn.init.zeros_(model[1].weight)
            _fill(filled, str(tmp_path / "w.pt"), "--weights")
            assert model[1].weight.eq(3).all()
    inner = {name.replace("1.", "1._orig_mod."): value for name, value in state.items()}
    torch.nn.init.zeros_(model[1].weight)
    torch.save(inner, tmp_path / "w.pt")  # one block was compiled
    _fill(model, str(tmp_path / "w.pt"), "--weights")
    assert model[1].weight.eq(3).all()


def test_a_file_with_a_whole_model_says_what_to_save(tmp_path):
    from tune_jobs.errors import SweepError
    from tune_jobs.probing.model import _fill

    torch.save({"model": torch.nn.Linear(3, 2)}, tmp_path / "w.pt")
    told = r"w\.pt: holds code \(torch\.nn\S+\), not only tensors; save model\.state_dict\(\)$"
    with pytest.raises(SweepError, match=told):
        _fill(torch.nn.Linear(3, 2), str(tmp_path / "w.pt"), "--weights")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<html>", b"version https://git-lfs", b"r\xe5\xc1", b"U\xc8", b"My"]
)
def test_a_file_that_holds_no_weights_is_refused_in_words(tmp_path, content):
    from tune_jobs.errors import SweepError
    from tune_jobs.probing.model import _fill

    (tmp_path / "w.pt").write_bytes(content)
    told = r"w\.pt: was not written by torch\.save, or is damaged$"
    with pytest.raises(SweepError, match=told):
        _fill(torch.nn.Linear(3, 2), str(tmp_path / "w.pt"), "--weights")


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_numbers_get_the_precision_of_the_model(place, geosweep, undrawn, kind):
    Path("net.py").write_text(f"{NET}\n\ndef other():\n    return build().to(torch.{kind})\n")
    exact = np.random.default_rng(0).standard_normal((20, 12))
    np.savez("points.npz", x=exact)
    status, said = geosweep("probe", "net.py:other", "--data", "points.npz", "--no-null")
    assert status == 0, said
    names: dict = {}
    exec(NET, names)
    model = names["build"]().to(getattr(torch, kind))
    with torch.no_grad(), TrackProbe(model) as probe:
        model(torch.from_numpy(exact).to(getattr(torch, kind)))
    (row,) = pd.read_parquet("runs/probe-net-other/stages.parquet").to_dict("records")
    assert_allclose(row["lss"], probe.result.frame().lss[0], rtol=1e-3 if "16" in kind else 1e-7)


def test_a_model_with_a_backbone_downloads_no_weights(monkeypatch):
    from torchvision.models._api import WeightsEnum

    from tune_jobs.probing.model import load

    def get_state_dict(self, *arguments, **more):
        pytest.fail(f"{self.url} would be downloaded")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    loaded = load("torchvision:lraspp_mobilenet_v3_large", None)
    assert loaded.again is not None
    first, second = (next(model.parameters()) for model in (loaded.model, loaded.again()))
    assert not torch.equal(first, second)  # both are drawn at random


def test_weights_of_a_lazy_model_need_a_call_of_it(tmp_path):
    from tune_jobs.errors import SweepError
    from tune_jobs.probing.model import _fill

    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "w.pt")
    lazy = torch.nn.LazyLinear(2)
    with pytest.raises(SweepError, match=r"w.pt: .*call the model once first, in the function"):
        _fill(torch.nn.Sequential(lazy), str(tmp_path / "w.pt"), "--weights")
    lazy(torch.zeros(1, 3))
    _fill(lazy, str(tmp_path / "w.pt"), "--weights")


def test_the_checkpoint_of_a_sweep_over_an_architecture_can_be_probed(tmp_path):
    from tune_jobs.probing.model import _fill

    state = {"model.weight": torch.tensor([[3.0]]), "model.bias": torch.tensor([4.0])}
    torch.save({"epoch": 2, "network": state}, tmp_path / "w.pt")
    model = torch.nn.Linear(1, 1)
    _fill(model, str(tmp_path / "w.pt"), "--weights")
    assert (model.weight.item(), model.bias.item()) == (3, 4)


@pytest.mark.slow
def test_two_checkpoints_stand_side_by_side_with_figures(place, geosweep):
    status, said = geosweep(
        *("probe", "net.py:build", "--weights", "a.pt", "--compare", "b.pt"),
        *("--data", "points.npz", "--no-null", "--out", "out"),
    )
    assert status == 0, said
    assert said.index("a.pt") < said.index("b.pt")
    frame = pd.read_parquet("out/stages.parquet")
    assert frame.weights.tolist() == ["a.pt", "b.pt"]
    assert frame.lss[0] != frame.lss[1]
    for name in ("depth", "tracks"):
        assert Path(f"out/{name}.png").stat().st_size > 5000
        assert b"</svg>" in Path(f"out/{name}.svg").read_bytes()


def test_figures_of_a_folder_without_results_are_refused(tmp_path, capsys):
    assert figures.main([str(tmp_path)]) == 2
    assert "has no probe.json" in capsys.readouterr().err
    (tmp_path / "probe.json").write_text("{")
    assert figures.main([str(tmp_path)]) == 2


def test_figures_of_nothing_are_drawn_all_the_same(tmp_path):
    one = {"stage": 1, "blocks": 1, "lss": None, "straightness_factor": None, "lss_random": 1.0}
    for results in ({}, {"x": {"stages": [], "blocks": [], "tracks": []}}):
        (tmp_path / "probe.json").write_text(json.dumps({"results": results}))
        assert figures.draw(str(tmp_path))[0] == "depth.png"
    alone = {"x": {"stages": [one], "blocks": [], "tracks": [[[[0.0, 1.0]], [[1.0, 2.0]]]]}}
    (tmp_path / "probe.json").write_text(json.dumps({"results": alone}))
    assert "tracks.png" in figures.draw(str(tmp_path))


def test_new_weights_of_a_torchvision_model_are_drawn_as_torchvision_does(place, geosweep, undrawn):
    from torchvision.models import resnet18

    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    np.savez("points.npz", x=x)
    status, said = geosweep("probe", "torchvision:resnet18", "--data", "points.npz")
    assert status == 0, said
    torch.manual_seed(0)
    model = resnet18().eval()
    with torch.inference_mode(), TrackProbe(model) as probe:
        model(torch.from_numpy(x))
    row = pd.read_parquet("runs/probe-resnet18/stages.parquet").loc[0]
    assert_allclose(row.lss_reinit, probe.result.frame().lss[0], rtol=1e-5)
    assert {"lss_shuffle", "straightness_factor_reinit"} <= set(row.index)


def test_the_users_folder_is_not_searched_for_modules(place, geosweep, undrawn):
    Path("torchvision.py").write_text("raise SystemExit('wrong')")
    Path("net.py").write_text(NET + "\nimport sys\nassert '' not in sys.path[:1]\n")
    assert geosweep("probe", "net.py:build", "--data", "points.npz", "--no-null")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.py:build"], "which points? --data FILE.npz, or --text"),
        (["resnet18", "--data", "points.npz"], "no model; should be torchvision:NAME, timm:NAME"),
        (["torchvision:resnet19", "--data", "points.npz"], "did you mean resnet1"),
        (["nowhere.py:build", "--data", "points.npz"], "nowhere.py: cannot be read: No such file"),
        (["net.py:nothing", "--data", "points.npz"], "net.py: nothing does not exist"),
        (["net.py:number", "--data", "points.npz"], "returns int; should return a torch.nn.Module"),
        (["net.py:fails", "--data", "points.npz"], "net.py:fails: KeyError: 'no such key'"),
        (["net.py:plain", "--data", "points.npz"], "Linear x 2: 1, 3"),
        (["net.py:build", "--data", "nowhere.npz"], "--data nowhere.npz: no such file"),
        (["net.py:build", "--data", "other.npz"], "it has no array x_test, x or images"),
        (["net.py:build", "--data", "labels.npz"], "x is int64 (3,); should be uint8"),
        (["net.py:build", "--data", "wide.npz"], "the model fails on points of shape (4, 5)"),
        (["net.py:build", "--data", "points.npz", "--weights", "no.pt"], "no.pt: no such file"),
        (["net.py:build", "--data", "points.npz", "--weights", "net.py"], "--weights net.py: "),
        (["net.py:build", "--data", "points.npz", "--weights", "c.pt"], "it lacks 1.bias"),
        (["net.py:build", "--data", "points.npz", "--compare", "c.pt"], "--compare c.pt: it lacks"),
        (["net.py:build", "--text", "net.py"], "only transformers:FOLDER has a tokenizer"),
        (["net.py:build", "--data", "points.npz", "--transport", "1"], "should be 0, or 2"),
        (["net.py:build", "--data", "points.npz", "--blocks", "none"], "matches 'none'"),
        (["net.py:build", "--data", "points.npz", "--device", "moon"], "--device moon: "),
        (["net.py:build", "--data", "points.npz", "--tokens", "each"], "needs states (b, t, d)"),
    ],
)
def test_bad_input_ends_with_one_message_and_status_2(arguments, message, place, geosweep):
    np.savez("other.npz", y=np.zeros(3))
    np.savez("labels.npz", x=np.arange(3))
    np.savez("wide.npz", x=np.zeros((4, 5)))
    torch.save({"5.weight": torch.zeros(2, 8)}, "c.pt")
    status, said = geosweep("probe", *arguments)
    assert status == 2
    assert message in said
    assert "Traceback" not in said
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_folder_of_transformers_is_measured_on_text(tmp_path, monkeypatch, geosweep, undrawn):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from tokenizers import Tokenizer, models, pre_tokenizers

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    words = ["<pad>", "<unk>", "a", "short", "line", "and", "longer", "one"]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>"
    )
    config = transformers.GPT2Config(vocab_size=8, n_embd=16, n_layer=3, n_head=2, n_positions=16)
    transformers.GPT2Model(config).save_pretrained("gpt")
    fast.save_pretrained("gpt")
    Path("lines.txt").write_text("a short line\n\nand a longer line and one\na line\n")
    status, said = geosweep("probe", "transformers:gpt", "--text", "lines.txt", "--batch", "2")
    assert status == 0, said
    (row,) = pd.read_parquet("runs/probe-gpt/stages.parquet").to_dict("records")
    assert row["m"] == 3 + 6 + 2  # every token that is no padding
    assert row["blocks"] == 3
    status, said = geosweep("probe", "transformers:nowhere", "--text", "lines.txt")
    assert status == 2
    assert "no folder with a config.json" in said


@pytest.mark.slow
def test_the_examples_of_the_documentation_run():
    pytest.importorskip("transformers", reason="transformers is not installed")
    import re

    page = Path(__file__).parents[1] / "docs/probe.md"
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 5)

        def forward(self, x):
            return x + self.layer(x)

    torch.manual_seed(0)
    names = {
        "torch": torch,
        "model": nn.Sequential(Block(), Block(), Block()),
        "loader": [(torch.randn(4, 5), torch.zeros(4))] * 2,
    }
    printed: list[str] = []
    names["print"] = lambda value: printed.append(str(value))
    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(code, str(page), "exec"), names)
    assert len(printed) == 3
    assert "stage 1: layers.0 to layers.7" in printed[2]
    assert names["result"].rows()[0]["m"] == 64 * 17
