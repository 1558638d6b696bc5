"""Figures look the same whatever matplotlib is set to, and any name may stand in them."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_up import made_up_sweep, made_up_trial
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import figures, report
from analysis.plots import files
from analysis.results import Results, load

ROOT = Path(__file__).parents[1]
NAME = "lss_against_epoch"
ODD = "text.usetex: True\nfont.family: Comic Sans MS\nfont.size: 30\nsavefig.bbox: tight\n"
HARD = [
    "$\\frac$.npz",
    "a_b^{",
    "<b>&amp;</b>",
    "100 %",
    "two\nlines",
    "\x1b[31mred\x00",
    "$$",
    "#~",
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    made_up_trial(root)
    return root


@pytest.fixture(scope="module")
def results(sweep: Path) -> Results:
    return load(sweep, columns=figures.COLUMNS)


def drawn(results: Results) -> dict[str, bytes]:
    """The files of a figure, by form."""
    return files.render(figures.draw(results, only=[NAME])[NAME], NAME)


@pytest.mark.long
@pytest.mark.parametrize(
    ("environment", "rc"),
    [
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, ""),
        ({"MPLBACKEND": "garbage", "MPLCONFIGDIR": "config"}, "config/matplotlibrc"),
        ({"MPLBACKEND": "TkAgg"}, "matplotlibrc"),
        ({"MPLCONFIGDIR": "/dev/null/matplotlib"}, ""),  # nobody can write there
    ],
)
def test_a_figure_is_the_same_in_any_environment(
    sweep: Path, results: Results, tmp_path: Path, environment: dict[str, str], rc: str
) -> None:
    (tmp_path / "config").mkdir()
    if rc:
        (tmp_path / rc).write_text(ODD)
    command = [sys.executable, "-m", "analysis.figures", str(sweep), "--out", "out", "--only", NAME]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MPL")}
    environment = inherited | {"PYTHONPATH": str(ROOT)} | environment
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for form, content in drawn(results).items():
        assert (tmp_path / f"out/{NAME}.{form}").read_bytes() == content


def test_a_figure_is_the_same_in_a_notebook_with_settings_of_its_own(results: Results) -> None:
    before = drawn(results)
    with mpl.rc_context({"text.usetex": True, "font.family": "Comic Sans MS", "lines.color": "r"}):
        mine = dict(mpl.rcParams)
        assert drawn(results) == before
        assert dict(mpl.rcParams) == mine


@pytest.mark.slow
def test_the_user_s_backend_stays_for_the_user_s_figures() -> None:
    code = "from analysis import figures; import matplotlib, os; "
    code += "print(matplotlib.get_backend(auto_select=False), os.environ['MPLBACKEND'])"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"MPLBACKEND": "TkAgg"}
    ran = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.lower().split() == ["tkagg", "tkagg"]


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if isinstance(text, Text)]


letters = st.sampled_from("$\\{}_^%&#<>~-\n\r\t\x00\x1b\x7f\ufffe") | st.characters(
    exclude_categories=["Cs"]
)


@pytest.mark.slow
@example("$\\frac$.npz")
@example("a_b^{")
@example("\x1b]0;title\x07")
@given(st.text(letters, min_size=1, max_size=40))
def test_a_name_in_a_figure_is_text_and_no_markup(results: Results, name: str) -> None:
    named = results._replace(trials=results.trials.assign(dataset=name))
    figure = figures.draw(named, only=[NAME])[NAME]
    assert not any(text.get_parse_math() or text.get_usetex() for text in texts(figure))
    title = figure.axes[0].get_title()
    stem = Path(name).stem if name.endswith(".npz") else name
    plain = [letter for letter in stem if letter.isprintable() and not letter.isspace()]
    rest = iter(title)
    assert all(letter in rest for letter in plain)  # in this order
    svg = files.render(figure, NAME, ["svg"])["svg"]
    assert ElementTree.fromstring(svg).tag.endswith("svg")


@pytest.mark.slow
def test_no_label_of_an_axis_is_a_formula(tmp_path: Path) -> None:
    gammas = [10.0**k for k in range(-7, 6)]
    for gamma in [0.0, *gammas]:
        made_up_trial(tmp_path, gamma=gamma, lss=1 + gamma, lss_initial=2.0)
    drawings = figures.draw(load(tmp_path, columns=figures.COLUMNS))
    assert "scores_against_gamma" in drawings
    for name, figure in drawings.items():
        files.render(figure, name)
        assert not [text.get_text() for text in texts(figure) if "$" in text.get_text()]
    axes = drawings["scores_against_gamma"].axes[0]
    assert "10⁻³" in [label.get_text() for label in axes.get_xticklabels()]


@pytest.mark.usefixtures("svg_only")
@pytest.mark.slow
def test_a_figure_that_fails_is_named_and_the_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(results: Results) -> Figure:
        raise ValueError("no <b> here")

    spec = figures.FIGURES[NAME]._replace(function=fail)
    monkeypatch.setitem(figures.FIGURES, NAME, spec)
    root = made_up_sweep(tmp_path / "demo")
    with pytest.warns(RuntimeWarning, match=NAME):
        page = Path(report.build(root)).read_text()
    said = f"One figure is left out because of an error while drawing: {NAME} (ValueError: no "
    assert f"{said}&lt;b&gt; here)." in page
    assert page.count("data:image/svg+xml;base64") == 6
    assert figures.main([str(root), "--form", "svg"]) == 1
    told = capsys.readouterr()
    assert told.err == f"analysis.figures: {said}<b> here).\n"
    assert len(told.out.splitlines()) == 6


@pytest.mark.long
def test_odd_names_lose_neither_a_figure_nor_the_report(tmp_path: Path) -> None:
    root = tmp_path / "a_b^{ <b>$\\frac$ & 100 %\nline"
    for name in HARD:
        made_up_trial(root, dataset=name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        page = Path(report.build(root)).read_text()
    assert "<b>&amp;" not in page
    assert "<b>$" not in page
    for file in (root / "report").glob("*.svg"):
        ElementTree.parse(file)
