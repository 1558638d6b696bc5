"""In CSV, Markdown, LaTeX and HTML any text is read back as it was; none is taken for markup."""

import ast
import csv
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up import made_up_trial
from made_up_evaluations import EVALUATIONS
from test_rates import train

from analysis import claims, correlation, report, tables
from analysis.measures import paper_layout
from analysis.measures.layout import as_text
from analysis.measures.markup import (
    FORMULA,
    LATEX,
    csv_cell,
    latex_comment,
    latex_text,
    utf8,
    visible,
)
from scoring.tables import read_rows, write_table

MODULES = Path(report.__file__).parent
EXAMPLES = settings(max_examples=200 if "CI" in os.environ else 30)
PAGES = settings(max_examples=60 if "CI" in os.environ else 15)  # a page takes longer than a table
HOSTILE = [
    *("$\\frac$", "=cmd()", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "％", "＝1"),
    *("%", "50% of", "\\input{x}", "\\", "\\\\", "a\\|b", "|", "a|b|", "`x`", "<b>", "&lt;", "_x_"),
    *("two\nlines", "two\r\nlines", "a\rb", "a\x0bb", "a\x85b", "a\u2028b", "\x00", "\x1b[31m"),
    *("\u202eabc", "\u200f", "\ud800", "\ufffe", "[1pt]", "*", "~", "^", "#", "{", "}", '"', ";"),
    *("</script><script>alert(1)</script>", '" onload="x', "{{ 1 + 1 }}", "{% raw %}", "√n ± γ ²"),
    *("√m × σ ≤ W₂²", "10⁻³…", "R² ≥ 0.9"),
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=20),
    st.text(st.characters(exclude_categories=()), max_size=10),  # also lone surrogates
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join),
)
LABELS = TEXTS.map(utf8)  # a table holds no lone surrogates


def table(label: str) -> pd.DataFrame:
    """Texts and numbers in rows that differ, so that no column is folded."""
    return pd.DataFrame(
        {"what": [label, "x", label], "value": [-1.5, float("nan"), 2], "again": ["y", label, "z"]}
    )


@EXAMPLES
@given(LABELS)
def test_a_csv_file_gives_every_text_back_and_holds_no_formula(label):
    text = as_text(table(label), "csv")
    text.encode()
    whole = utf8(label).replace("\0", r"\x00")
    heads, *rows = csv.reader(io.StringIO(text, newline=""))
    assert heads == ["what", "value", "again"]
    for cell, value, again in rows:
        assert not cell.startswith(tuple("=+-@\t\r\n"))
        assert not again.startswith(tuple("=+-@\t\r\n"))
        assert value in ("-1.5", "", "2.0")  # numbers stay numbers
    found = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str)
    mark = "'" if whole.startswith(FORMULA) else ""
    assert found.what[0] == found.again[1] == rows[0][0] == mark + whole


@EXAMPLES
@given(LABELS)
def test_a_json_table_can_be_written_whatever_its_texts(label):
    text = as_text(table(label), "json")
    text.encode()
    assert json.loads(text)[1]["again"] == utf8(label)


@EXAMPLES
@given(LABELS)
def test_a_markdown_table_has_one_line_per_row_and_shows_every_text(label):
    lines = as_text(table(label), "md").split("\n")
    assert lines.pop() == ""
    assert len(lines) == 2 + 3
    for line, where in ((lines[2], 1), (lines[3], 3)):
        assert line.splitlines() == [line]
        cells = re.findall(r"(?: |^)((?:[^|\\]|\\.)*)(?:\|)", line)
        assert len(cells) == 4  # the first is in front of the row
        cell = cells[where].removesuffix(" ")
        assert re.fullmatch(r"(?:[^\\`*<>|&~$\[\]]|\\[\\`*<>|&~$\[\]_])*", cell)
        assert re.sub(r"\\(.)", r"\1", cell) == visible(label)


UNDO = {v: k for k, v in LATEX.items()} | {"{[}": "[", "{*}": "*"}
WORD = re.compile(
    "|".join(map(re.escape, sorted(UNDO, key=len, reverse=True))) + r"|[^\\{}$%#&_~^\n]"
)


def set_in_latex(cell: str) -> str:
    """What LaTeX prints for a cell; fails if the cell holds anything but letters and escapes."""
    found = WORD.findall(cell)
    assert "".join(found) == cell
    return "".join(UNDO.get(word, word) for word in found)


@EXAMPLES
@given(LABELS)
def test_a_latex_table_prints_every_text_and_runs_none(label):
    text = as_text(table(label), "latex")
    text.encode()
    assert text.splitlines() == text.split("\n")[:-1]
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0].split("\n")[:-1]
    assert len(body) == 3
    for line, where in ((body[0], 0), (body[1], 2)):
        assert line.endswith(r" \\")
        assert not re.match(r"\s*[\[*]", line)  # would be options of the line break before
        cells = line.removesuffix(r" \\").split(" & ")
        assert len(cells) == 3
        assert set_in_latex(cells[where]) == visible(label)


def written_letters(file: Path) -> set[str]:
    """Letters outside ASCII in the texts of a module, without its docstrings."""
    tree = ast.parse(file.read_text())
    said = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    found = [str(node.value) for node in texts if isinstance(node.value, str) and node not in said]
    return {letter for letter in "".join(found) if not letter.isascii()}


def test_latex_knows_every_letter_that_a_module_writes():
    files = [*MODULES.glob("*.py"), *MODULES.glob("measures/*.py")]
    files.remove(MODULES / "measures/markup.py")  # quotes letters that it takes for formulas
    letters = set().union(*map(written_letters, files))
    assert {"γ", "ρ", "₂"} <= letters
    assert [letter for letter in sorted(letters) if not latex_text(letter).isascii()] == []


@pytest.fixture(scope="module")
def every_table(tmp_path_factory) -> Path:
    """A sweep that has rows for every table."""
    root = train(tmp_path_factory.mktemp("every") / "demo", 1.0, 1.0, seeds=2, lss_scaled=3.0)
    for network in ("plain", "resnet"):
        for stages in (1, 2):
            for gamma in (0.0, 0.01, 0.1):
                given = {"network": network, "stages": stages, "gamma": gamma, "epochs": 2}
                made_up_trial(root, tried=[*EVALUATIONS], **given)
                made_up_trial(root, straightness_penalty=0.1, **given)
    return root


COMMANDS = {name: (tables.main, ["--table", name]) for name in ("paper", *tables.TABLES)}
COMMANDS |= {"claims": (claims.main, []), "correlation": (correlation.main, [])}


@pytest.mark.slow
@pytest.mark.parametrize(("main", "options"), COMMANDS.values(), ids=COMMANDS)
def test_every_table_is_ascii_in_latex(every_table, capsys, main, options):
    assert main([str(every_table), "--format", "latex", *options]) == 0
    told = capsys.readouterr().out
    assert "\\toprule" in told
    assert [letter for letter in sorted(set(told)) if not letter.isascii()] == []


@EXAMPLES
@given(TEXTS)
def test_a_comment_in_latex_stays_one_line(label):
    assert latex_comment(label).splitlines() == [latex_comment(label)[:-1]]
    same = pd.DataFrame({"dataset": [utf8(label)] * 2, "gamma": [0, 1]})
    heads = [line for line in as_text(same, "latex").splitlines() if "every row" in line]
    assert [line.startswith("% every row: dataset = ") for line in heads] == [True] * bool(label)


class Reader(HTMLParser):
    """The tags, texts and comments of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple] = []
        self.cells: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        if tag in ("td", "th", "h1", "title", "p", "h3"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def gathered(tmp_path_factory):
    root = tmp_path_factory.mktemp("gathered")
    for network in ("plain", "resnet"):
        made_up_trial(root, network, epochs=2)
    made_up_trial(root, gamma=0.1, status="failed", error="an error")
    return report.gather(report.read(root))


def page(gathered, text: str) -> Reader:
    """The page of a sweep in which names, messages and data sets are the same text."""
    tables = {name: frame.copy() for name, frame in gathered.tables.items()}
    for name in ("trials", "failed", "summary"):
        tables[name]["dataset"] = [utf8(text), *["other"] * (len(tables[name]) - 1)]
    tables["failed"]["error"] = utf8(text)
    papers = [paper._replace(title=text) for paper in gathered.paper_tables]
    found = replace(gathered, name=text, tables=tables, paper_tables=papers)
    whole = report.render(found, [text], {})
    whole.encode()
    return Reader(whole)


@pytest.fixture(scope="module")
def usual(gathered):
    return page(gathered, "usual")


@pytest.mark.slow
@PAGES
@given(label=TEXTS)
@example(label="{{ title }}")
def test_a_page_has_the_same_elements_whatever_its_texts(gathered, usual, label):
    odd = page(gathered, label or "x")
    assert odd.tags == usual.tags
    shown = visible(label or "x", keep="\n")
    expected = [text.replace("usual", shown) for text in usual.cells]
    assert odd.cells[3:-1] == expected[3:-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "label",
    ["a" * 4000, "é" * 200, "=cmd()\n\r%\\input{x}|`<b>\u202e", "$\\frac$", "../../x", "\x00"],
)
@pytest.mark.usefixtures("without_figures")
def test_one_label_never_costs_the_report(tmp_path: Path, label):
    root = tmp_path / "demo"
    for stages in (1, 2):
        trial = made_up_trial(root, stages=stages, epochs=2)
        for kind in ("trials", "epochs", "tracks", "samples"):
            rows = [row | {"dataset": f"{label}.npz"} for row in read_rows(str(root), kind, trial)]
            write_table(str(root), kind, trial, rows)
    page = Path(report.build(root))
    made = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert made == {"demo"}
    assert len(list(page.parent.glob("form_of_table_*.csv"))) >= 2
    for file in page.parent.glob("form_of_table_*.csv"):
        assert f'href="{file.name}"' in page.read_text()
        assert set(pd.read_csv(file).dataset) == {csv_cell(f"{label}.npz")}


def test_long_names_that_differ_give_files_that_differ():
    names = {
        paper_layout._in_file_name(f"{first}{'x' * 300}.npz") for first in ("a", "b", "a\ud800")
    }
    assert len(names) == 3
    assert max(len(name.encode()) for name in names) < 200
