"""The commands ``python -m analysis.NAME``: their help, and arguments that they refuse."""

import re
from types import ModuleType

import pytest

from analysis import claims, correlation, figures, probe, report, results, tables, watch

WITHOUT_SWEEP = (probe, results, watch)  # no results of a sweep, or only those in its folder
OF_SWEEPS = (claims, correlation, figures, report, tables)


def name(script: ModuleType) -> str:
    return script.__name__


def refused(script: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture) -> str:
    """What a script says about arguments that are wrong."""
    with pytest.raises(SystemExit) as end:
        script.main(arguments)
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    return said.err.splitlines()[-1]


@pytest.mark.parametrize("script", [*OF_SWEEPS, *WITHOUT_SWEEP], ids=name)
def test_a_help_begins_with_a_sentence_and_has_commands_to_copy(script, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        script.main(["--help"])
    told = capsys.readouterr().out
    assert end.value.code == 0
    assert re.match(r"[A-Z].*\.$", told.split("\n\n")[1])
    assert "``" not in told
    examples = re.findall(rf"^    python -m {script.__name__}\b(.*)$", told, re.MULTILINE)
    assert examples
    options = set(re.findall(r"--[\w-]+", "".join(examples)))
    assert options <= set(re.findall(r"^  (--[\w-]+)", told, re.MULTILINE))


@pytest.mark.parametrize("script", [*OF_SWEEPS, probe, watch], ids=name)
def test_an_empty_folder_is_refused_like_one_of_an_unset_variable(script, capsys) -> None:
    assert "argument DIR: is empty" in refused(script, [""], capsys)


@pytest.mark.parametrize("script", OF_SWEEPS, ids=name)
def test_an_empty_address_of_mlflow_is_not_that_of_no_mlflow(script, capsys) -> None:
    said = refused(script, ["demo", "--tracking-uri", ""], capsys)
    assert "argument --tracking-uri: is empty" in said


@pytest.mark.parametrize("arguments", [["runs/nonexistent"], ["--table", "trials"], ["a", "b"]])
def test_the_list_of_columns_takes_no_arguments(arguments, capsys) -> None:
    assert "takes no arguments" in refused(results, arguments, capsys)


def test_the_list_of_columns_is_printed(capsys) -> None:
    assert results.main([]) == 0
    assert capsys.readouterr().out == results.columns_page()
