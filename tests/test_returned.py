"""Data sets that functions of users return: the same as an .npz file, or one message."""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from analysis.plots import panels
from models import datasets
from models.archives import ARRAYS
from models.callables import find
from models.errors import DataError
from scoring import handover
from scoring.tables import read_row
from tune_jobs import service, sweep, trial
from tune_jobs.tuning import Setup

pytestmark = pytest.mark.usefixtures("cache")

START = """
import numpy as np
import torch
from torch.utils.data import Dataset, Subset, TensorDataset
draw = np.random.default_rng(0)
x_train, x_test = (draw.integers(0, 256, (count, 5, 4), np.uint8) for count in (12, 6))
y_train, y_test = np.arange(12) % 3, np.arange(6) % 3
x, y = torch.from_numpy(x_train), torch.from_numpy(y_train)
"""


def code_of(folder, body, name="mine.py"):
    """A function ``made`` in a file."""
    lines = "\n    ".join(body.strip().splitlines())
    (folder / name).write_text(f"{START}def made():\n    {lines}\n")
    return find(f"{name}:made", folder)


def loaded(folder, body):
    return datasets.from_code(code_of(folder, body))


def refusal(folder, body):
    """The message that a function is refused with: one line, which names the file."""
    with pytest.raises(DataError) as error:
        loaded(folder, body)
    message = str(error.value)
    assert message.startswith(f"{folder}/mine.py")
    assert len(message.splitlines()) == 1
    assert not (datasets.cache_folder() / "arrays-2").exists()
    return message


PAIRS = "return (x_train, y_train), (x_test, y_test)"


@pytest.mark.parametrize(
    "body",
    [
        PAIRS,
        "return x_train, y_train, x_test, y_test",
        "return {'x_train': x, 'y_train': y, 'x_test': x_test, 'y_test': y_test, 'more': 1}",
        "return (x, y), (torch.from_numpy(x_test), torch.from_numpy(y_test))",
        "return (x[:, None], y), (x_test[..., None], y_test)",
        "return ([*x[:, None]], y), (list(torch.from_numpy(x_test)), y_test)",
        "return (x_train / 255, y_train), (np.float32(x_test) / 255, y_test)",
        "return TensorDataset(x, y), TensorDataset(*map(torch.from_numpy, (x_test, y_test)))",
        "return TensorDataset(x[:, None] / 255, y.to(torch.uint8)), (x_test, y_test)",
        """
        class Mine(Dataset):
            def __len__(self):
                return 12
            def __getitem__(self, number):
                return Image.fromarray(x_train[number]), int(y_train[number])
        from PIL import Image
        return Subset(Mine(), range(12)), (x_test, y_test)
        """,
    ],
)
def test_every_allowed_form_is_the_same_data_set_as_an_npz_file(tmp_path, body):
    space = {}
    exec(START, space)
    np.savez(tmp_path / "same.npz", **{key: space[key] for key in ARRAYS})
    wanted = datasets.load(str(tmp_path / "same.npz"))
    found = loaded(tmp_path, re.sub("(?m)^ {8}", "", body))
    for key in ARRAYS:
        assert_array_equal(getattr(found, key), getattr(wanted, key))
        assert getattr(found, key).dtype == getattr(wanted, key).dtype
    assert (found.checksum, found.mean, found.std) == (wanted.checksum, wanted.mean, wanted.std)
    assert found.image == (1, 5, 4)


@pytest.mark.parametrize(("mode", "alike"), [("P", "RGB"), ("PA", "RGBA"), ("1", "L")])
@pytest.mark.parametrize("form", ["(pictures, y_train)", "Mine()"])
def test_pictures_of_a_palette_or_of_bits_are_taken_as_they_look(tmp_path, mode, alike, form):
    body = f"""
    from PIL import Image
    coloured = (x_train[..., None] // np.array([1, 2, 4])).astype(np.uint8)
    pictures = [Image.fromarray(x).convert("P").convert("{mode}") for x in coloured]
    class Mine(Dataset):
        def __len__(self):
            return 12
        def __getitem__(self, number):
            return pictures[number], int(y_train[number])
    wanted = np.array([np.asarray(picture.convert("{alike}")) for picture in pictures])
    return {form}, (wanted, y_train)
    """
    found = loaded(tmp_path, re.sub("(?m)^ {4}", "", body))
    assert_array_equal(found.x_train, found.x_test)
    assert found.image[0] == len(alike)


def test_channels_of_tensors_come_first_and_those_of_arrays_last(tmp_path):
    body = """
    coloured = draw.integers(0, 256, (12, 8, 6, 3), np.uint8)
    first = torch.from_numpy(coloured).permute(0, 3, 1, 2)
    return {two}, (coloured, y_train)
    """
    for two in ("(first, y_train)", "TensorDataset(first / 255, y)", "(coloured, y_train)"):
        found = loaded(tmp_path, re.sub("(?m)^ {4}", "", body.format(two=two)))
        assert found.image == (3, 8, 6)
        assert_array_equal(found.x_train, found.x_test)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return x_train", "returns a ndarray; should return a mapping with x_train"),
        ("return None", "returns nothing; should return"),
        ("return x_train, y_train, x_test", "returns a tuple of 3; should return"),
        ("return {'x_train': x_train, 'y': y}", "returns no y_train, x_test, y_test;"),
        ("return x_train, x_test", "returns a ndarray for train; should return"),
        ("return iter([]), iter([])", "for train, without a length"),
        ("return (x_train, y_train[:3]), (x_test, y_test)", "y_train is int64 (3,); should be 12"),
        ("return (x_train, y_train), (x_test[:, :4], y_test)", "train and test images differ"),
        ("return (x_train, y_train), (x_test, y_test + 1)", "y_test has labels that y_train"),
        ("return (x_train, y_train - 1), (x_test, y_test)", "y_train has the label -1"),
        ("return (x_train, y_train / 2), (x_test, y_test)", "use y.astype(numpy.int64)"),
        ("return (x_train[:0], y_train[:0]), (x_test, y_test)", "x_train is uint8 (0, 5, 4)"),
        ("return (np.zeros((12, 3, 8, 8), np.uint8), y), (x_test, y)", "channels come first"),
        ("return (x_train.astype(int), y_train), (x_test, y_test)", "x.astype(numpy.uint8)"),
        ("return (x_train.astype(object), y), (x_test, y_test)", "x_train is object (12, 5, 4)"),
        ("return (x_train * np.nan, y_train), (x_test, y_test)", "values from nan to nan"),
        ("return (x_train - 0.5, y_train), (x_test, y_test)", "leave out Normalize"),
        ("return (x_train / 254, y_train), (x_test, y_test)", "should be uint8, or n/255"),
        ("return (x_train * 1.0, y_train), (x_test, y_test)", "should be uint8, or n/255"),
        (
            "return (np.full((12, 5, 4), 1e308), y_train), (x_test, y_test)",
            "should be uint8, or n/255",
        ),
        ("return TensorDataset(x), TensorDataset(x)", "train[0] is a tuple of 1; should be an"),
        ("return TensorDataset(x, y + 0.5), 0", "train[0] has the label tensor(0.5000"),
        ("return TensorDataset(x[:0], y[:0]), 0", "train has no images"),
        ("return Subset([(x_train[0], 0), (x_test[0, 1:], 1)], [0, 1]), 0", "to one size"),
        (
            "return Subset([(x_train[0], 0), (x_train[1].astype('<u2'), 1)], [0, 1]), 0",
            "train[1] is uint16, and train[0] uint8; bring all images to uint8",
        ),
        (
            "return Subset([(x_train[0] > 9, 0), (x_train[1], 1)], [0, 1]), 0",
            "train[1] is uint8, and train[0] bool;",
        ),
        (
            "from PIL import Image\n"
            "return Subset([(Image.fromarray(x_train[0]).convert(m), 0) for m in 'LI'], [0, 1]), 0",
            "train[1] is int32, and train[0] uint8;",
        ),
        ("return ([[1, 2], [3]], [0, 1]), ([[[1]]], [0])", "ValueError: "),
    ],
)
def test_what_is_no_data_set_is_refused_in_one_line(tmp_path, body, told):
    message = refusal(tmp_path, body)
    assert message.startswith(f"{tmp_path}/mine.py:made: ")
    assert told in message


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("pass\nraise KeyError('somewhere')", ", line 11: KeyError: 'somewhere'"),
        ("import sys\nsys.exit('enough')", ", line 11: SystemExit: enough"),
        ("import sys\nopen('nowhere')", ", line 11: FileNotFoundError: [Errno 2] No such file"),
        (
            "class Bad:\n    def __len__(self):\n        return 1\n    def __getitem__(self, n):\n"
            "        return 1 // n\nreturn Bad(), Bad()",
            ", line 14: ZeroDivisionError: integer division or modulo by zero",
        ),
    ],
)
def test_what_it_raises_is_told_with_file_and_line(tmp_path, body, told):
    assert refusal(tmp_path, body).startswith(f"{tmp_path}/mine.py{told}")


def test_a_function_that_needs_arguments_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text("def made(folder): ...\n")
    with pytest.raises(DataError, match=r"mine\.py:made: missing a required argument: 'folder'"):
        datasets.from_code(find("mine.py:made", tmp_path))


@pytest.mark.parametrize("images", ["x", "x_train"])
def test_a_few_images_without_channels_are_not_taken_for_channels(tmp_path, images):
    """A tensor of shape (count, height, width) has at most as many images as channels here."""
    few = f"({images}[:4], y_train[:4])"
    found = loaded(tmp_path, f"return {few}, ({images}[:3], y_train[:3])")
    assert found.image == (1, 5, 4)
    assert (len(found.x_train), len(found.x_test)) == (4, 3)


def test_what_it_and_its_processes_print_goes_to_standard_error(tmp_path, capfd):
    below = "import os, subprocess\nos.write(1, b'below\\n')\nsubprocess.run(['echo', 'far below'])"
    loaded(tmp_path, f"print('reading')\n{below}\n{PAIRS}")
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "reading\nbelow\nfar below\n")


def test_functions_of_one_text_in_two_folders_each_read_what_lies_beside_them(tmp_path):
    body = (
        "new = np.load(__file__.replace('mine.py', 'x.npy'))\nreturn (new, y_train), (new, y_train)"
    )
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        code = code_of(tmp_path / name, body)
        for more in (0, 1):  # the file beside it changes, too
            new = np.full((12, 5, 4), 10 * number + more, np.uint8)
            np.save(tmp_path / name / "x.npy", new)
            assert_array_equal(datasets.from_code(code).x_train[..., 0], new)


def test_a_function_returns_the_same_after_another_of_its_file_was_called(tmp_path):
    text = f"{START}def {{}}():\n    new = draw.integers(0, 256, (12, 5, 4), np.uint8)\n"
    text += "    return (new, y_train), (new, y_train)\n"
    (tmp_path / "mine.py").write_text(text.format("one") + text.format("two").replace(START, ""))
    one, two = (find(f"mine.py:{name}", tmp_path) for name in ("one", "two"))
    found = [datasets.from_code(code).checksum for code in (one, two, two, one)]
    assert len({*found}) == 1


def test_trials_find_it_in_the_cache_without_calling_it_again(tmp_path):
    code = code_of(
        tmp_path, f"with open({str(tmp_path / 'calls')!r}, 'a') as file: file.write('x')\n{PAIRS}"
    )
    data = datasets.from_code(code)
    again = datasets.load(datasets.source_of(data))
    assert again.checksum == data.checksum
    assert_array_equal(again.x_train, data.x_train)
    assert (tmp_path / "calls").read_text() == "x"
    (place,) = (datasets.cache_folder() / "arrays-2").glob("[!.]*-made-*/")
    assert place.name == f"mine-made-{data.checksum}"
    for file in place.iterdir():
        file.unlink()
    with pytest.raises(DataError, match="no longer there; run the sweep again"):
        datasets.load(datasets.source_of(data))


def test_other_data_of_the_same_file_is_kept_beside_the_first(tmp_path):
    body = f"seed = int(np.fromfile({str(tmp_path / 'seed')!r}, sep=' ')[0])\n"
    body += "new = np.random.default_rng(seed).integers(0, 256, x_train.shape, np.uint8)\n"
    code = code_of(tmp_path, f"{body}return (new, y_train), (x_test, y_test)")
    found = []
    for seed in (0, 1, 0):
        (tmp_path / "seed").write_text(str(seed))
        found.append(datasets.from_code(code))
    one, two, three = (data.checksum for data in found)
    assert one == three != two
    for data in found:
        kept = datasets.load(datasets.source_of(data))
        assert_array_equal(kept.x_train, data.x_train)


def test_a_file_sorted_by_class_is_spread_like_an_npz_file(tmp_path):
    body = "many = np.arange(300) // 100\nimages = np.uint8(np.arange(300)).reshape(-1, 1, 1)\n"
    found = loaded(tmp_path, f"{body}return (images, many), (images, many)")
    assert list(found.spread) == ["train", "test"]
    order = np.random.default_rng(0).permutation(300)
    assert_array_equal(found.x_train.ravel(), np.uint8(np.arange(300))[order])
    assert datasets.load(datasets.source_of(found)).checksum == found.checksum


def test_a_damaged_copy_in_the_cache_is_replaced(tmp_path):
    code = code_of(tmp_path, PAIRS)
    data = datasets.from_code(code)
    wanted = data.x_train.tolist()
    (place,) = (datasets.cache_folder() / "arrays-2").glob("[!.]*-made-*/")
    content = bytearray((place / "x_train.npy").read_bytes())
    content[-1] ^= 255
    (place / "x_train.npy").write_bytes(content)
    assert datasets.from_code(code).checksum == data.checksum
    assert datasets.load(datasets.source_of(data)).x_train.tolist() == wanted


def test_a_torch_data_set_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("models.archives.memory", lambda: 1000.0)
    told = refusal(tmp_path, "return TensorDataset(x, y), TensorDataset(x, y)")
    assert "x_train: uint8 (12, 5, 4)" in told


def test_without_a_terminal_there_is_no_progress_bar(tmp_path, capfd):
    loaded(tmp_path, "return TensorDataset(x, y), TensorDataset(x, y)")
    assert capfd.readouterr() == ("", "")


SWEEP = """
dataset: [mine.py:made, digits]
layers: fully_connected
epochs: 1
points: 5
epoch_points: 5
"""


def test_a_sweep_names_it_by_its_content_and_trials_train_on_it(tmp_path, monkeypatch):
    code = code_of(tmp_path, PAIRS)
    (tmp_path / "own.yaml").write_text(SWEEP)
    found = sweep.read(str(tmp_path / "own.yaml"))
    own, digits = found.trials
    assert (own.dataset, digits.dataset) == (code.identity, "digits")
    assert re.fullmatch(r"mine\.py:made#[0-9a-f]{12}", own.dataset)
    request = service.check(found, str(tmp_path / "out"), None, None)
    assert request.sources[own.dataset] == f"prepared:{request.checksums[own.dataset]}"
    (tmp_path / "mine.py").unlink()
    monkeypatch.setattr(trial.tune, "report", lambda record: None)
    root = str(tmp_path / "out")
    trial.run_trial(own.model_dump(), Setup(root, request.sources))
    handover.finish(root, own.trial)
    row = read_row(root, "trials", own.trial)
    assert (row["dataset"], row["classes"], row["image"]) == (own.dataset, 3, "1 x 5 x 4")
    assert row["data_checksum"] == request.checksums[own.dataset]
    assert row["status"] == "done"


def test_a_change_of_the_file_makes_other_trials(tmp_path):
    (tmp_path / "own.yaml").write_text(SWEEP)
    found = []
    for body in (PAIRS, f"pass\n{PAIRS}", PAIRS):
        code_of(tmp_path, body)
        found.append([one.trial for one in sweep.read(str(tmp_path / "own.yaml")).trials])
    one, two, three = found
    assert one == three
    assert (one[0] != two[0], one[1] == two[1]) == (True, True)


def test_a_dry_run_calls_it_once(tmp_path, geosweep):
    calls = tmp_path / "calls"
    code_of(tmp_path, f"with open({str(calls)!r}, 'a') as file: file.write('x')\n{PAIRS}")
    (tmp_path / "own.yaml").write_text(SWEEP + "seeds: 3\n")
    status, said = geosweep(
        "run", str(tmp_path / "own.yaml"), "--dry-run", "--out", f"{tmp_path}/o"
    )
    assert (status, calls.read_text()) == (0, "x")
    assert "mine.py:made#" in said


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise OSError('no disk')", "dataset: {folder}/mine.py, line 10: OSError: no disk"),
        ("return 1", "dataset: {folder}/mine.py:made: returns an int; should return"),
        ("return (x_train, y_train), (x_test[:3], y_test[:3])", "has 3 test images, so give"),
    ],
)
def test_nothing_starts_with_what_is_no_data_set(tmp_path, geosweep, body, told):
    code_of(tmp_path, body)
    (tmp_path / "own.yaml").write_text(SWEEP)
    status, said = geosweep("run", str(tmp_path / "own.yaml"), "--out", f"{tmp_path}/out")
    flat = " ".join(said.split())
    assert status == 2
    assert f"{tmp_path}/own.yaml: " in flat
    assert told.format(folder=tmp_path) in flat
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_missing_is_named_with_the_line_of_the_sweep(tmp_path, geosweep):
    (tmp_path / "own.yaml").write_text(SWEEP)
    status, said = geosweep("run", str(tmp_path / "own.yaml"), "--dry-run")
    assert status == 2
    told = f"own.yaml, line 2: dataset: {tmp_path}/mine.py: cannot be read: No such file"
    assert told in " ".join(said.split())


def test_a_user_s_data_set_has_a_short_name_in_figures(tmp_path):
    identity = code_of(tmp_path, PAIRS).identity
    assert panels.data_name(identity) == "mine:made"
