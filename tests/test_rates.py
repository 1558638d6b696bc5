"""Does gamma act by itself, or through the effective rate? In numbers, in words, as a figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from scipy import stats

from analysis import figures, report, tables
from analysis.measures import rate_answers
from analysis.measures.rates import AS_IS, FASTER, FIXED, SMALLER, effects, rate_of_trials
from analysis.results import Results, load
from scoring.tables import write_table

BASE, SCALE = 1e-3, 2.0
CELLS = [  # gamma, renormalise, learning rate, initial scale
    *((gamma, False, BASE, SCALE) for gamma in (0.0, 0.01, 0.1)),
    *((gamma, True, BASE, SCALE) for gamma in (0.0, 0.01, 0.1)),
    *((0.0, False, rate, SCALE) for rate in (3e-3, 1e-2)),
    *((0.0, False, BASE, scale) for scale in (1.0, 0.5)),
]


def rate(gamma: float, fixed: bool, learning_rate: float, scale: float) -> float:
    """An effective rate that grows with gamma unless it is fixed."""
    shrunk = 1.0 if fixed else (1 + 100 * gamma) ** -0.5
    return learning_rate / (scale * shrunk) ** 2


def train(
    root: Path, by_rate: float, by_gamma: float, seeds: int = 5, noise: float = 0.01, **more: object
) -> Path:
    """Trials of a world in which LSS falls and accuracy rises with the rate, gamma, or both."""
    for number, (gamma, fixed, learning_rate, scale) in enumerate(CELLS):
        effective = rate(gamma, fixed, learning_rate, scale)
        for seed in range(seeds):
            rng = np.random.default_rng([number, seed])
            gain = by_rate * np.log10(effective / 2.5e-4) + by_gamma * np.log10(1 + 100 * gamma)
            gain += noise * rng.normal()
            trial = f"c{number}s{seed}"
            row = {
                **{"trial": trial, "dataset": "digits", "layers": "convolutional"},
                **{"network": "resnet", "stages": 1, "seed": seed, "points": 500},
                **{"gamma": gamma, "renormalise": fixed, "initial_scale": scale},
                **{"learning_rate": learning_rate, "status": "done", "lss": 4 - gain},
                **{"test_accuracy": 0.8 + 0.05 * gain, "clean_train_accuracy": 0.9 + 0.01 * gain},
            }
            write_table(str(root), "trials", trial, [row | more])
            epochs = [
                {"trial": trial, "epoch": epoch, "learning_rate": learning_rate}
                | {"effective_rate": effective if epoch else None}
                for epoch in range(3)
            ]
            write_table(str(root), "epochs", trial, epochs)
    return root


def read(root: Path) -> Results:
    return load(root, tables=("trials", "epochs"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("both"), 0.5, 0.5)


def answer(root: Path, outcome: str = "lss") -> tuple[str, str, str, str]:
    found = rate_answers.answers(effects(read(root)))
    (row,) = found[found.outcome == outcome].to_dict("records")
    return row["as_is"], row["rate_fixed"], row["higher_rate"], row["verdict"]


# The changes


def test_each_setting_is_compared_with_gamma_0_without_it(both: Path) -> None:
    table = effects(read(both))
    found = table[["change", "start", "end", "learning_rate", "initial_scale"]].to_numpy().tolist()
    assert found == [
        [AS_IS, 0, 0.01, BASE, SCALE],
        [AS_IS, 0, 0.1, BASE, SCALE],
        [FIXED, 0, 0.01, BASE, SCALE],
        [FIXED, 0, 0.1, BASE, SCALE],
        [FASTER, BASE, 3e-3, 3e-3, SCALE],
        [FASTER, BASE, 1e-2, 1e-2, SCALE],
        [SMALLER, SCALE, 1, BASE, 1],
        [SMALLER, SCALE, 0.5, BASE, 0.5],
    ]
    assert table.paired.all()
    assert_allclose(table.rate_before, rate(0, False, BASE, SCALE))
    assert_allclose(table.rate_ratio, [2, 11, 1, 1, 3, 10, 4, 16])


def test_a_change_is_that_of_a_paired_t_test(both: Path) -> None:
    results = read(both)
    trials = results.trials.sort_values("seed").set_index("gamma")
    fixed = trials[trials.renormalise.astype("bool")]
    (row,) = (effects(results).query("change == @FIXED and end == 0.1")).to_dict("records")
    for name in ("lss", "test_accuracy", "clean_train_accuracy"):
        wanted = stats.ttest_rel(fixed.loc[0.1, name], fixed.loc[0.0, name])
        low, high = wanted.confidence_interval(0.95)
        ends = row[f"{name}_change"] + np.array([-1, 1]) * row[f"{name}_change_ci95"]
        assert_allclose(ends, [low, high])
        assert_allclose(row[f"{name}_p"], wanted.pvalue)


def test_p_values_are_corrected_over_the_rows_of_a_question(both: Path) -> None:
    table = effects(read(both))
    for kinds in ((AS_IS,), (FIXED,), (FASTER, SMALLER)):
        rows = table[table.change.isin(kinds)].sort_values("lss_p")
        steps = [p * (len(rows) - tried) for tried, p in enumerate(rows.lss_p)]
        assert_allclose(rows.lss_p_adjusted, np.minimum(np.maximum.accumulate(steps), 1))


def test_the_rate_of_a_trial_leaves_its_schedule_out(tmp_path: Path) -> None:
    key = {"trial": "a", "dataset": "digits", "network": "resnet", "stages": 1, "gamma": 0.0}
    row = key | {"seed": 0, "status": "done", "learning_rate": 0.1}
    write_table(str(tmp_path), "trials", "a", [row])
    falling = [(0, None, None), (1, 0.1, 0.4), (2, 0.05, 0.8), (3, 0.0, 0.0)]
    epochs = [
        {"trial": "a", "epoch": epoch, "learning_rate": now, "effective_rate": effective}
        for epoch, now, effective in falling
    ]
    write_table(str(tmp_path), "epochs", "a", epochs)
    assert_allclose(rate_of_trials(read(tmp_path))["a"], 0.1 * (4 * 16) ** 0.5)


def test_gamma_alone_says_nothing_about_rates(tmp_path: Path) -> None:
    assert len(effects(load(made_up_sweep(tmp_path)))) == 0


def test_networks_without_an_effective_rate_have_no_changes(tmp_path: Path) -> None:
    root = train(tmp_path, 0.5, 0.5, seeds=2)
    for trial in {row["trial"] for row in load(root, tables=("trials",)).trials.to_dict("records")}:
        epochs = [{"trial": trial, "epoch": e, "learning_rate": BASE} for e in range(3)]
        write_table(str(root), "epochs", trial, epochs)
    assert len(effects(read(root))) == 0


def test_a_change_of_a_score_counts_from_before_training(tmp_path: Path) -> None:
    root = train(tmp_path, 0.5, 0.5)
    before = effects(read(root)).set_index(["change", "end"])
    for row in load(root, tables=("trials",)).trials.to_dict("records"):
        initial = 5.0 + row["initial_scale"]
        kept = {name: value for name, value in row.items() if not pd.isna(value)}
        write_table(str(root), "trials", row["trial"], [kept | {"lss_initial": initial}])
    after = effects(read(root)).set_index(["change", "end"])
    moved = after.lss_change - before.lss_change
    for (change, end), value in moved.items():
        assert_allclose(value, SCALE - end if change == SMALLER else 0, atol=1e-12)
    assert_allclose(after.test_accuracy_change, before.test_accuracy_change)


def test_higher_rates_start_at_the_lowest_that_gamma_was_trained_at(tmp_path: Path) -> None:
    root = train(tmp_path, 0.5, 0.5, seeds=2)
    row = load(root, tables=("trials",)).trials.query("trial == 'c0s0'").to_dict("records")[0]
    kept = {name: value for name, value in row.items() if not pd.isna(value)}
    write_table(str(root), "trials", "low", [kept | {"trial": "low", "learning_rate": BASE / 10}])
    epochs = [
        {
            "trial": "low",
            "epoch": e,
            "learning_rate": BASE / 10,
            "effective_rate": 1e-5 if e else None,
        }
        for e in range(3)
    ]
    write_table(str(root), "epochs", "low", epochs)
    table = effects(read(root))
    assert set(table[table.change == FASTER].start) == {BASE}


# The answers


def test_where_the_rate_does_it_all_a_fixed_rate_leaves_nothing(tmp_path: Path) -> None:
    root = train(tmp_path, 1.0, 0.0)
    for outcome in ("lss", "test_accuracy", "clean_train_accuracy"):
        assert answer(root, outcome) == ("yes", "no", "yes", "the effective rate")


def test_where_gamma_does_it_all_a_higher_rate_does_nothing(tmp_path: Path) -> None:
    root = train(tmp_path, 0.0, 1.0)
    for outcome in ("lss", "test_accuracy", "clean_train_accuracy"):
        assert answer(root, outcome) == ("yes", "yes", "no", "γ by itself")


def test_where_both_do_it_both_are_named(both: Path) -> None:
    assert answer(both) == ("yes", "yes", "yes", "both: γ by itself, and the effective rate")


def test_where_nothing_does_it_there_is_nothing_to_explain(tmp_path: Path) -> None:
    as_is, *_, verdict = answer(train(tmp_path, 0.0, 0.0))
    assert as_is == "undecided"
    assert verdict == "no sure effect of γ, so no cause to look for"


@pytest.mark.parametrize(("seeds", "noise"), [(1, 0.01), (3, 1.0)])
def test_few_or_noisy_seeds_decide_nothing(tmp_path: Path, seeds: int, noise: float) -> None:
    assert answer(train(tmp_path, 0.2, 0.2, seeds, noise))[:3] == ("undecided",) * 3


def test_a_rise_of_lss_with_gamma_at_a_fixed_rate_is_a_no(tmp_path: Path) -> None:
    assert answer(train(tmp_path, 3.0, -1.0))[:3] == ("yes", "no", "yes")


@pytest.mark.parametrize(
    ("rows", "told"),
    [  # change of LSS, adjusted p, whether it is less: of higher learning rates
        (
            [(0.25, 0.3, True), (0.77, 0.5, False)],
            "no (+0.25 ± 0.10, surely less than 50% of γ's, at",
        ),
        (
            [(-0.13, 0.3, True), (-0.41, 0.2, True)],
            "no (−0.41 ± 0.10, surely less than 50% of γ's, at",
        ),
        ([(-0.13, 0.3, True), (0.2, 0.01, False), (0.9, 0.5, False)], "no (+0.20 ± 0.10 at"),
        ([(-0.3, 0.01, False), (-0.9, 0.5, False)], "yes (−0.30 ± 0.10 at"),
        ([(0.1, 0.5, False), (0.77, 0.5, False)], "undecided (+0.77 ± 0.10 at"),
    ],
)
def test_the_numbers_beside_an_answer_are_a_reason_for_it(rows: list, told: str) -> None:
    table = pd.DataFrame(rows, columns=["lss_change", "lss_p_adjusted", "lss_less"])
    table["lss_change_ci95"] = 0.1
    for name in ("lss_scaled", "clean_train_accuracy", "test_accuracy"):
        table[f"{name}_change"] = np.nan
    about = {"network": "resnet", "change": FASTER, "start": BASE, "end": 0.1, "m": 500}
    table = pd.concat([pd.DataFrame([about] * len(rows)), table], axis=1)
    (shown,) = rate_answers.shown(rate_answers.answers(table)).to_dict("records")
    assert shown["higher_rate"].startswith(told)


def test_the_sentence_has_answers_numbers_and_seeds(both: Path) -> None:
    table = effects(read(both))
    first, *_, last = rate_answers.sentences(table, rate_answers.answers(table))
    assert first.startswith("ResNet, LSS: γ lowers it as it is: yes (−1.0")
    assert "with the effective rate fixed: yes (−0.5" in first
    assert "So: both: γ by itself, and the effective rate." in first
    assert "m = 500, 5 seeds a side" in last


# The command, the figure and the report


@pytest.mark.parametrize("table", ["rates", "rate_answers"])
@pytest.mark.parametrize("form", ["csv", "json", "md", "latex"])
def test_the_tables_are_printed_in_every_form(
    both: Path, capsys: pytest.CaptureFixture[str], table: str, form: str
) -> None:
    assert tables.main([str(both), "--table", table, "--format", form]) == 0
    assert "rate fixed" in capsys.readouterr().out.replace("_", " ").replace("\\", "")


def test_the_command_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up_sweep(tmp_path)
    assert tables.main([str(tmp_path), "--table", "rates"]) == 2
    assert "with and without renormalise" in capsys.readouterr().err


def draw(root: Path) -> Figure:
    return figures.draw(read(root), only=["scores_against_rate"])["scores_against_rate"]


def test_the_figure_has_a_line_for_each_kind_of_change(both: Path) -> None:
    figure = draw(both)
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    wanted = ["LSS", "clean train accuracy", "test accuracy"]
    assert [title.split("\n")[-1] for title in titles] == [f"change of {name}" for name in wanted]
    table = effects(read(both))
    drawn = [np.asarray(line.get_xydata(), "float64") for line in figure.axes[0].lines]
    for kind in (AS_IS, FIXED, FASTER, SMALLER):
        own = table[table.change == kind]
        heights = [0, *own.lss_change]
        (line,) = (line for line in drawn if len(line) == 3 and np.allclose(line[:, 1], heights))
        if kind == FIXED:  # beside the start, in the order of gamma
            assert (np.diff(line[:, 0]) < 0).all()
        else:
            assert_allclose(line[:, 0], own.rate_before.iloc[0] * np.array([1, *own.rate_ratio]))


def test_no_interval_of_a_change_is_cut_off(tmp_path: Path) -> None:
    root = train(tmp_path, 0.1, 0.1, seeds=3, noise=2.0)
    table, figure = effects(read(root)), draw(root)
    for axes, name in zip(
        figure.axes, ("lss", "clean_train_accuracy", "test_accuracy"), strict=True
    ):
        (low, high), change = axes.get_ylim(), table[f"{name}_change"]
        half = table[f"{name}_change_ci95"]
        assert low < min(0, (change - half).min())
        assert high > max(0, (change + half).max())


def test_the_report_has_the_section_and_its_answers(both: Path, tmp_path: Path) -> None:
    page = report.build(both, tmp_path).read_text()
    assert 'href="#rates"' in page
    assert "So: both: γ by itself, and the effective rate." in page
    for name in ("rates.csv", "rate_answers.tex", "scores_against_rate.svg"):
        assert (tmp_path / name).stat().st_size > 0
    found = pd.read_csv(tmp_path / "rates.csv")
    assert_allclose(found.lss_change, effects(read(both)).lss_change)


def test_the_report_of_gamma_alone_has_no_such_section(report_page: Path) -> None:
    assert 'id="rates"' not in report_page.read_text()
