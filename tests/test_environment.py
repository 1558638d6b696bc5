"""Odd environment variables are refused in one line, or count as not set."""

from pathlib import Path

import pytest

from tune_jobs import folder, processes
from tune_jobs.errors import SweepError


@pytest.mark.parametrize("text", ["two", "-1", "nan", "inf", "1e99", "1,5", " "])
def test_a_number_of_gpus_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("GEOSWEEP_GPUS", text)
    with pytest.raises(SweepError, match=r"GEOSWEEP_GPUS = .* should be a number of GPUs"):
        processes.expected_gpus()


@pytest.mark.parametrize(("text", "gpus"), [(None, None), ("", None), ("0", 0), ("0.5", 0.5)])
def test_gpus_that_are_to_come_are_read_from_the_environment(text, gpus, monkeypatch):
    monkeypatch.delenv("GEOSWEEP_GPUS", raising=False)
    if text is not None:
        monkeypatch.setenv("GEOSWEEP_GPUS", text)
    assert processes.expected_gpus() == gpus


@pytest.mark.parametrize(("storage", "folder_of"), [("", "runs"), (None, "runs"), ("out", "out")])
def test_an_empty_storage_counts_as_not_set(storage, folder_of, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEOSWEEP_STORAGE", raising=False)
    if storage is not None:
        monkeypatch.setenv("GEOSWEEP_STORAGE", storage)
    assert folder.path_of("demo") == str(Path(folder_of, "demo").absolute())
