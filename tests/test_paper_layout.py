"""The paper's tables beside what was measured, on sweeps made up for the purpose."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep, made_up_trial, paper_sweep
from scipy import stats

from analysis import tables
from analysis.measures import paper
from analysis.measures.paper_layout import as_text, paper_tables
from analysis.measures.side_by_side import side_by_side
from analysis.results import load
from scoring.tables import write_table


@pytest.fixture(scope="module")
def of_the_paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paper_sweep(tmp_path_factory.mktemp("paper"))


def test_the_papers_own_numbers_come_out_with_difference_0(of_the_paper: Path) -> None:
    table = side_by_side(load(of_the_paper))
    assert table.table.value_counts().to_dict() == {2: 90, 3: 90, 4: 90, 5: 90, 6: 40, 7: 40}
    np.testing.assert_array_equal(table.here, table.paper)
    np.testing.assert_array_equal(table.difference, 0)
    np.testing.assert_array_equal(table.here_std, table.paper_std)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2, 8))
def test_the_papers_tables_come_out_digit_for_digit(of_the_paper: Path, number: int) -> None:
    (table,) = (t for t in paper_tables(load(of_the_paper)) if t.name == f"table_{number}")
    shown = table.rows.set_axis([f"{a} {b}".strip() for a, b in table.rows.columns], axis=1)
    here, there, difference = (
        shown[shown.iloc[:, 1] == s] for s in ("here", "paper", "difference")
    )
    assert here.iloc[:, 2:].to_numpy().tolist() == there.iloc[:, 2:].to_numpy().tolist()
    assert set(difference.iloc[:, 2:].to_numpy().ravel()) == {"0"}
    numbers = paper.numbers()
    numbers = numbers[numbers.table == number]
    assert here.iloc[:, 2:].size == len(numbers)
    texts = [text for row in here.iloc[:, 2:].to_numpy() for text in row]
    printed = sorted(float(text.partition(" ")[0]) for text in texts)
    assert printed == sorted(numbers.paper)
    deviations = sorted(float(t[t.index("(") + 1 : -1]) for t in texts if "(" in t)
    assert deviations == sorted(numbers.paper_std.dropna())


def test_rows_of_table_4_read_as_the_paper_prints_them(of_the_paper: Path) -> None:
    (table,) = (t for t in paper_tables(load(of_the_paper)) if t.name == "table_4")
    assert table.rows.iloc[5].tolist()[:2] == ["0.0001", "here"]
    assert table.rows.iloc[5].tolist()[2:] == (
        ["0.530", "0.646", "0.549", "0.675", "0.0023", "0.329", "67.9", "3.30", "19.1", "3.60"]
    )
    assert "2e-1" in table.notes[0]
    assert table.rows.iloc[-1, 0] == "0.2"


def cifar(root: Path, seed: int = 0, **change: object) -> None:
    """A trial of Table 4: the ResNet at gamma 1e-2."""
    made_up_trial(root, gamma=0.01, seed=seed, dataset="cifar10", **change)


def test_here_is_the_mean_over_seeds_and_the_difference_is_to_the_paper(tmp_path: Path) -> None:
    values = [2.1, 2.2, 2.6]
    for seed, value in enumerate(values):
        cifar(tmp_path, seed, lss=value)
    table = side_by_side(load(tmp_path))
    known = table[table.here.notna() & (table.quantity == "lss")]
    (row,) = known.to_dict("records")
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    assert (row["network"], row["gamma"], row["seeds"], row["m"]) == ("resnet", 0.01, 3, 1000)
    np.testing.assert_allclose([row["here"], row["here_ci95"]], [np.mean(values), half])
    np.testing.assert_allclose(row["difference"], np.mean(values) - 2.25)


@pytest.mark.parametrize(
    ("stages", "m", "compared"),
    [
        *((1, 10_000, True), (1, 1000, False), (1, 100, False)),
        *((4, 1000, True), (4, 2000, True), (4, 10_000, False)),
    ],
)
def test_ots_has_a_difference_only_at_an_m_that_the_papers_may_have(
    tmp_path: Path, stages: int, m: int, compared: bool
) -> None:
    cifar(tmp_path, stages=stages, points=m, ots=0.9)
    table = side_by_side(load(tmp_path))
    known = table[table.here.notna() & table.paper.notna()].set_index("quantity")
    assert known.difference.drop("ots").notna().all()
    assert bool(known.difference.notna()["ots"]) == compared
    number = {1: 4, 4: 6}[stages]
    (shown,) = (t for t in paper_tables(load(tmp_path)) if t.name == f"table_{number}")
    why = [note for note in shown.notes if note.endswith("so OTS has no difference.")]
    assert len(why) == (not compared)
    if not compared:
        sizes = {1: "10,000", 4: "1,000 or 2,000"}[stages]
        assert why[0].startswith(f"OTS falls with m. Ours has m = {m:,} and the paper's {sizes},")
        assert why[0] in as_text(shown, "md")


def test_what_the_paper_has_and_the_sweep_has_not_is_a_dash(tmp_path: Path) -> None:
    cifar(tmp_path)
    (table,) = (t for t in paper_tables(load(tmp_path)) if t.name == "table_4")
    missing = table.rows[(table.rows.iloc[:, 0] == "0.1") & (table.rows.iloc[:, 1] == "here")]
    assert set(missing.iloc[0, 2:]) == {"–"}


def test_nulls_stand_above_the_numbers(tmp_path: Path) -> None:
    cifar(tmp_path, lss_initial=3.21, ots_initial=1.0)
    (table,) = (t for t in paper_tables(load(tmp_path)) if t.name == "table_4")
    before, random = table.rows.iloc[0], table.rows.iloc[1]
    assert (before["LSS", "ResNet"], before["OTS", "ResNet"]) == ("3.21", "1")
    assert (random["LSS", "ResNet"], random["OTS", "ResNet"]) == ("3.16", "0.001")


def test_other_data_sets_get_tables_of_the_same_form(tmp_path: Path) -> None:
    made_up_sweep(tmp_path)
    made_up_trial(tmp_path, stages=2, gamma=0.01)
    names = [table.name for table in paper_tables(load(tmp_path))]
    assert names == [
        "table_1",
        "form_of_table_4_digits_K1",
        "form_of_table_2_digits_K1",
        "form_of_table_3_digits_K1",
        "form_of_table_6_digits_K2",
    ]


def test_titles_of_other_networks_have_their_names(tmp_path: Path) -> None:
    name = "torchvision:resnet18"
    for stages in (1, 2):
        given = {"architecture": name, "layers": None, "stages": stages}
        made_up_trial(tmp_path, name, **given)
    titles = [table.title for table in paper_tables(load(tmp_path))][1:]
    assert titles == [
        f"In the form of Table 4: {name} (digits, K = 1, m = 1,000)",
        f"In the form of Table 3: Shares of a track's length by segment, {name} (digits, K = 1, "
        "m = 1,000)",
        f"In the form of Table 6: {name} (digits, K = 2, m = 1,000)",
    ]


def test_several_m_and_settings_make_tables_of_their_own(tmp_path: Path) -> None:
    cifar(tmp_path)
    cifar(tmp_path, 1, points=500)
    cifar(tmp_path, 2, recipe="sgd")
    found = {table.name: table.title for table in paper_tables(load(tmp_path))}
    assert {"table_4", "table_4_2", "table_4_3"} < set(found)
    assert len(set(found.values())) == len(found)


def test_collapsed_and_unfinished_trials_are_in_no_number(tmp_path: Path) -> None:
    cifar(tmp_path, 0, ots=0.5, lss=2.0)
    cifar(tmp_path, 1, collapsed=True, lss=3.0)
    cifar(tmp_path, 2, status="diverged")
    cifar(tmp_path, 3, status="stopped")
    table = side_by_side(load(tmp_path)).set_index("quantity")
    here = table[table.here.notna()]
    assert (here.here["ots"], here.seeds["ots"], here.seeds["lss"]) == (0.5, 1, 2)


def test_nothing_done_makes_no_table(tmp_path: Path) -> None:
    cifar(tmp_path, status="failed")
    results = load(tmp_path)
    assert not list(paper_tables(results))
    assert not len(side_by_side(results))


def test_the_architecture_is_beside_the_papers(tmp_path: Path) -> None:
    cifar(tmp_path, image="3 x 32 x 32", shapes="32 x 16 x 16", blocks=10, classes=10)
    first = next(paper_tables(load(tmp_path)))
    here, there = first.rows.to_numpy().tolist()
    assert here[:2] + here[3:] == there[:2] + there[3:]
    assert (here[2], there[2]) == ("here", "paper")


def test_every_form_is_read_back(of_the_paper: Path) -> None:
    for table in paper_tables(load(of_the_paper)):
        assert r"\toprule" in as_text(table, "latex")
        rows = list(csv.DictReader(io.StringIO(as_text(table, "csv"))))
        assert len(rows) == len(table.numbers)
        assert as_text(table, "md").startswith(table.title)


def test_a_search_with_hundreds_of_gammas_makes_no_endless_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(60):
        row = {"dataset": "cifar10", "network": "plain", "stages": 1, "gamma": rng.random()}
        row |= {
            "trial": f"{i:012x}",
            "seed": 0,
            "layers": "convolutional",
            "status": "done",
            "lss": 3.0,
            "points": 10,
        }
        write_table(str(tmp_path), "trials", f"{i:012x}", [row])
    results = load(tmp_path)
    assert [table.name for table in paper_tables(results)] == ["table_1"]
    assert (side_by_side(results).here == 3.0).sum() == 60


def test_the_command_prints_a_table_or_says_what_there_is(of_the_paper: Path, capsys) -> None:
    assert tables.main([str(of_the_paper), "--table", "7", "--format", "csv"]) == 0
    read = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert read.table.eq(7).all()
    assert read.difference.eq(0).all()
    assert tables.main([str(of_the_paper), "--format", "json"]) == 0
    assert len(pd.read_json(io.StringIO(capsys.readouterr().out))) == 440
    assert tables.main([str(of_the_paper)]) == 0
    assert capsys.readouterr().out.count("\n\n| ") == 7


def test_a_table_that_is_not_there_is_told_in_one_line(tmp_path: Path, capsys) -> None:
    made_up_trial(tmp_path)
    assert tables.main([str(tmp_path), "--table", "5"]) == 2
    told = capsys.readouterr().err
    assert "has nothing of Table 5, only of 1, 3, 4; see --table summary" in told
    assert len(told.splitlines()) == 1
    assert tables.main([str(tmp_path), "--table", "robustness"]) == 2
    assert "no trial has been evaluated; geosweep evaluate" in capsys.readouterr().err
