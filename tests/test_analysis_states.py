"""The section about states: scores that ignore scale, separation of classes, effective rank."""

from pathlib import Path

import numpy as np
import pytest
from made_up import made_up_sweep, made_up_trial, scored_at_another_m

from analysis import report, tables
from analysis.measures.states import sentences, states
from analysis.measures.summary import summary
from analysis.plots.states import has_states, states_by_block
from analysis.results import load
from scoring.tables import read_rows, write_table

SCORES = {"lss_scaled": 2.0, "energy": 50.0, "relative_energy": 3.0, "fuzziness_slope": np.log(0.5)}
SCORES |= {"fuzziness_fit": 0.95, "nc1": 0.1, "effective_rank": 7.0, "curvature": 80.0}
BEFORE = {"lss_scaled": 3.0, "energy": 90.0, "relative_energy": 2.0, "fuzziness_slope": 0.1}
BEFORE |= {"fuzziness_fit": 0.5}


def with_states(root: Path, scale: float = 1.0) -> Path:
    """Add to a made-up sweep what this version measures of states."""
    for file in root.glob("results/trials/*.parquet"):
        rows = read_rows(str(root), "trials", file.stem)
        if rows[0]["status"] != "done":
            continue
        now = {name: scale * value for name, value in SCORES.items()}
        before = {f"{name}_initial": value for name, value in BEFORE.items()}
        write_table(str(root), "trials", file.stem, [row | now | before for row in rows])
        tracks = read_rows(str(root), "tracks", file.stem)
        last = max(row["epoch"] for row in tracks)
        for row in tracks:
            if row["epoch"] in (0, last):
                falls = 0.9 if row["epoch"] == 0 else 0.5
                count = range(row["blocks"] + 1)
                row["fuzziness"] = [falls**block * row["stage"] for block in count]
                row["effective_rank"] = [5.0 + block for block in count]
        write_table(str(root), "tracks", file.stem, tracks)
    return root


def test_a_cell_has_the_means_over_its_seeds_and_those_before_training(tmp_path):
    table = states(load(with_states(made_up_sweep(tmp_path))))
    assert len(table) == 8
    assert table.lss_scaled.tolist() == [2.0] * 8
    assert table.lss_scaled_initial.tolist() == [3.0] * 8
    assert table.columns[-3:].tolist() == [
        f"effective_rank{end}" for end in ("", "_ci95", "_initial")
    ]


def test_the_sentences_give_both_numbers_with_those_before_training(tmp_path):
    said = sentences(states(load(with_states(made_up_sweep(tmp_path)))))
    assert len(said) == 4
    assert said[0].startswith("Plain: LSS is ")
    assert "and 2.00 on states of equal size" in said[0]
    assert "energy of all blocks is 50 (before training 90)" in said[0]
    assert "relative to the spread of the states 3 (2)" in said[0]
    assert "by 0.50 on average, before training by 1.11" in said[1]
    assert "training improved this in 4 of 4 cells" in said[1]
    assert said[1].endswith("holds in 4 of 4, before training in 0 of 4.")
    assert said[0].endswith("Means over 4 cells, m = 1,000, 2 seeds per cell.")


def test_without_the_network_before_training_the_sentences_say_unknown(tmp_path):
    table = states(load(with_states(made_up_sweep(tmp_path))))
    unknown = table.assign(**dict.fromkeys(table.filter(like="_initial"), np.nan))
    said = sentences(unknown)
    assert "before training unknown and unknown" in said[0]
    assert "its value before training is unknown. The law" in said[1]
    assert not [text for text in said if "nan" in text]
    without = sentences(unknown.assign(fuzziness_slope=np.nan))
    assert without == said[::2]  # nothing about classes


def test_the_table_of_cells_has_lss_on_states_of_equal_size_beside_lss(tmp_path):
    columns = list(summary(load(with_states(made_up_sweep(tmp_path)))))
    place = columns.index("lss_random") + 1
    assert columns[place : place + 3] == ["lss_scaled", "lss_scaled_ci95", "lss_scaled_initial"]


def test_every_state_has_its_place_and_stages_are_apart(tmp_path):
    made_up_trial(tmp_path, stages=2)
    figure = states_by_block(load(with_states(tmp_path)))
    left, right = (axes for axes in figure.axes if axes.get_visible())
    lines = [line for line in left.lines if str(line.get_label()).startswith("γ")]
    assert [line.get_xdata().tolist() for line in lines] == [[*range(6)], [*range(6, 12)]]
    np.testing.assert_allclose(lines[1].get_ydata(), [2 * 0.5**block for block in range(6)])
    dotted = [line for line in left.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(dotted[0].get_ydata(), [0.9**block for block in range(6)])
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
    assert right.get_ylim() == (0, pytest.approx(1.12 * 10))


def test_the_axis_of_the_effective_rank_shows_the_lines_of_many_gammas(tmp_path):
    for i in range(13):
        made_up_trial(tmp_path, gamma=i / 100)
    with_states(tmp_path)
    for file in tmp_path.glob("results/tracks/*.parquet"):
        rows = read_rows(str(tmp_path), "tracks", file.stem)
        for row in rows:
            if row["epoch"] == 6:
                row["effective_rank"] = [400.0] * 11
        write_table(str(tmp_path), "tracks", file.stem, rows)
    right = states_by_block(load(tmp_path)).axes[1]
    assert right.get_ylim() == (0, pytest.approx(1.12 * 400))


def test_networks_that_were_scored_at_two_m_are_one_seed(tmp_path):
    results = load(with_states(made_up_sweep(tmp_path)))
    again = scored_at_another_m(results)
    again.trials["points"] = 500
    assert states(again).seeds.tolist() == states(results).seeds.tolist()


def test_the_command_prints_the_table_or_what_adds_it(tmp_path, capsys):
    root = str(made_up_sweep(tmp_path))
    assert tables.main([root, "--table", "states"]) == 2
    assert f"geosweep evaluate {root} scores" in capsys.readouterr().err
    with_states(tmp_path)
    assert tables.main([root, "--table", "states"]) == 0
    assert "LSS, equal size" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("scored", [True, False])
def test_the_report_has_a_section_about_states_if_they_were_measured(
    tmp_path, scored, without_figures
):
    root = made_up_sweep(tmp_path)
    if scored:
        with_states(root)
    page = Path(report.build(root)).read_text()
    assert has_states(load(root)) == scored
    assert ('<h2 id="states">' in page) == scored
    assert ("LSS, equal size" in page) == scored
    assert (root / "report/states.csv").exists() == scored
