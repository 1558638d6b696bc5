"""Tables 1 to 7 in the paper's layout: measured here, printed in the paper, and the difference.

There is a table for each data set, K and m of a sweep, in the form of Tables 4 and 5 (K = 1) or 6
and 7 (K > 1). If the paper has that network, its numbers stand below ours.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.measures import layout, paper
from analysis.measures.markup import latex_comment, markdown_text, utf8
from analysis.measures.side_by_side import KEY, QUANTITIES, SHARE, keyed, side_by_side
from analysis.results import Results

SOURCES = ("here", "paper", "difference")
BASELINE = "baseline"  # the source named in rows of baselines
MOST = 40  # Leave out a table with more values of gamma than this, such as that of a search.
DEVIATIONS = ("OTS", "LSR", "LSS")  # columns with a deviation over stages at K > 1
LONGEST = 150  # bytes of a data set's name in the name of a file
STUB = [("γ", ""), ("", "")]  # the first two columns: gamma and source


class PaperTable(NamedTuple):
    """A table in the paper's layout."""

    name: str  # of its files: table_4, or form_of_table_4_digits_K1 if the paper has no such table
    title: str
    rows: pd.DataFrame  # texts; columns are pairs (quantity, network)
    notes: tuple[str, ...]
    numbers: pd.DataFrame  # the rows of side_by_side that it shows


def paper_tables(results: Results) -> Iterator[PaperTable]:
    """The tables of a sweep in the paper's layout, as texts.

    Yields:
        Table 1, then for each data set, K, m and other setting the scores, and at K = 1 the segment
        shares of each network. Each row says what was measured ``here`` (mean over seeds ±
        half-width of the 95% t-interval, deviation over stages in brackets), followed by rows with
        the ``paper``'s numbers and the ``difference`` if the paper has any. The first two rows are
        baselines: before training, and at random.
    """
    trials = keyed(results)
    if not len(trials):
        return
    yield _architectures(trials)
    names: Counter[str] = Counter()
    for table in _all(results, trials):
        names[table.name] += 1  # the same table may occur with several m
        again = f"_{names[table.name]}" if names[table.name] > 1 else ""
        yield table._replace(name=table.name + again)


def _all(results: Results, trials: pd.DataFrame) -> Iterator[PaperTable]:
    whole = side_by_side(results, trials)
    whole["setting"] = whole.setting.fillna("")
    for key, group in whole.groupby(KEY, sort=True):
        place = dict(zip(KEY, key, strict=True))  # type: ignore[call-overload]
        if group.gamma.nunique() > MOST:
            continue
        own = trials[(trials[KEY].astype("object").fillna("") == pd.Series(place)).all(axis=1)]
        yield _scores(place, group[group.quantity != SHARE], own)
        shares = group[group.quantity == SHARE]
        for network, rows in shares.groupby("network"):
            yield _share_table(place, str(network), rows)


def _architectures(trials: pd.DataFrame) -> PaperTable:
    names = ["dataset", "layers", "stages", "image", "shapes", "blocks", "classes"]
    own = trials.layers != ""  # an architecture has its name instead
    trials = trials.assign(layers=trials.layers.where(own, trials.network))
    rows = []
    for key, found in trials[names].drop_duplicates().groupby(names[:3]):
        here = found.iloc[0]
        known = paper.ARCHITECTURES
        known = known[(known[names[:3]] == list(key)).all(axis=1)]
        for source, frame in (("here", here.to_frame().T), ("paper", known)):
            for row in frame.to_dict("records"):
                rows.append({"source": source} | row)
    table = pd.DataFrame(rows, columns=["dataset", "stages", "source", "layers", *names[3:]])
    heads = ["Data set", "K", "", "Layers", "Data dim.", "Intermediate dim.", "Blocks", "Classes"]
    for name in ("blocks", "classes"):
        table[name] = table[name].astype("float").map("{:g}".format).replace("nan", "–")
    shown = table.astype("object").fillna("–").astype("str")
    shown["layers"] = shown.layers.str.replace("_", " ")
    shown.columns = pd.MultiIndex.from_tuples([(head, "") for head in heads])
    return PaperTable("table_1", f"Table 1: {paper.TITLES[1]}", shown, (), table)


def _scores(place: dict[str, Any], group: pd.DataFrame, trials: pd.DataFrame) -> PaperTable:
    """The form of Tables 4 and 5, or, with deviations over stages, of 6 and 7."""
    quantities = [n for n in QUANTITIES if place["stages"] == 1 or n != "train_accuracy"]
    pairs = [(n, net) for n in quantities for net in sorted(group.network.unique())]
    baselines: list[dict] = []
    for title, column in (("before training", "initial"), ("at random", "random")):
        row = dict(zip(STUB, (title, BASELINE), strict=True))
        for n, net in pairs:
            if f"{n}_{column}" in trials:
                mean = trials[trials.network == net][f"{n}_{column}"].mean()
                row[n, net] = _number(n, mean)
        baselines.append(row)
    return _laid_out(place, baselines + _rows(group), pairs, group, "")


def _share_table(place: dict[str, Any], network: str, group: pd.DataFrame) -> PaperTable:
    """The form of Tables 2 and 3."""
    pairs = [(f"S{segment}", "") for segment in sorted(group.segment.unique())]
    row = dict(zip(STUB, ("equal steps", BASELINE), strict=True))
    row |= {pair: _number(SHARE, 1 / len(pairs)) for pair in pairs}
    return _laid_out(place, [row, *_rows(group)], pairs, group, network)


def _rows(group: pd.DataFrame) -> list[dict[tuple[str, str], str]]:
    """One row per gamma and source; numbers by (quantity, network) or (segment, "")."""
    sources = SOURCES if group.paper.notna().any() else SOURCES[:1]
    rows = []
    for gamma, cells in group.groupby("gamma"):
        records = cells.to_dict("records")
        for source in sources:
            start = dict(zip(STUB, (f"{gamma:g}", source), strict=True))
            rows.append(start | {_column(cell): _text(source, cell) for cell in records})
    return rows


def _laid_out(
    place: dict[str, Any], rows: list[dict], pairs: list, group: pd.DataFrame, network: str
) -> PaperTable:
    shown = pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples([*STUB, *pairs]))
    shown = shown.astype("object").fillna("–").astype("str")
    heads = [(QUANTITIES.get(a, a), layout.network_name(b)) for a, b in shown.columns]
    if place["stages"] > 1:
        heads = [(f"{a} (std)" if a in DEVIATIONS else a, b) for a, b in heads]
    shown.columns = pd.MultiIndex.from_tuples(heads)
    number = group.table.dropna().unique()
    where = f"{place['dataset']}, K = {place['stages']}, m = {place['m']:,}"
    if place["setting"]:
        where += f", {place['setting']}"
    if len(number):
        name, title = f"table_{number[0]}", f"Table {number[0]}: {paper.TITLES[number[0]]}"
        notes = (*paper.NOTES[number[0]], *_without_difference(place, group))
        return PaperTable(name, f"{title} ({where})", shown, notes, group)
    form = 4 if place["stages"] == 1 else 6
    if network:
        form = 2 if network == "plain" else 3
    name = f"form_of_table_{form}_{_in_file_name(place['dataset'])}_K{place['stages']}"
    title = paper.TITLES[form].partition(" with ")[0]
    if not place["layers"]:  # of an architecture
        title = _named(title, sorted(map(layout.network_name, group.network.unique())))
    title = f"In the form of Table {form}: {title} ({where})"
    return PaperTable(name, title, shown, (), group)


def _without_difference(place: dict[str, Any], group: pd.DataFrame) -> tuple[str, ...]:
    """Why OTS has no difference from the paper's, if it has none."""
    both = group[group.quantity.eq("ots") & group.here.notna() & group.paper.notna()]
    if not len(both) or both.difference.notna().any():
        return ()
    sizes = " or ".join(f"{m:,}" for m in paper.SIZES[place["stages"]])
    return (
        f"OTS falls with m. Ours has m = {place['m']:,} and the paper's {sizes}, so OTS has no "
        "difference.",
    )


def _named(title: str, networks: list[str]) -> str:
    """A title of the paper with the names of other networks in the place of the paper's two.

    >>> _named("Plain network and ResNet", ["net.py:Net", "torchvision:resnet18"])
    'net.py:Net and torchvision:resnet18'
    >>> _named("Shares of a track's length by segment, ResNet", ["net.py:Net"])
    "Shares of a track's length by segment, net.py:Net"
    """
    what, comma, _ = title.rpartition(", ")
    names = " and ".join(networks) if len(networks) < 3 else f"{len(networks)} networks"
    return f"{what}{comma}{names}"


def _in_file_name(dataset: str) -> str:
    """A data set's name as part of a file's name, which has at most 255 bytes.

    >>> _in_file_name("/data/mine.npz")
    '_data_mine_npz'
    """
    name = "".join(c if c.isalnum() else "_" for c in dataset)
    if len(name.encode()) <= LONGEST:
        return name
    digest = sha256(utf8(dataset).encode()).hexdigest()[:8]
    return f"{name.encode()[-LONGEST:].decode(errors='ignore')}_{digest}"


def _column(cell: Mapping[Any, Any]) -> tuple[str, str]:
    if cell["quantity"] == SHARE:
        return f"S{cell['segment']}", ""
    return cell["quantity"], cell["network"]


def _text(source: str, cell: Mapping[Any, Any]) -> str:
    """A number as the table shows it: ``0.813 ± 0.02 (0.32)``."""
    if source == "difference":
        value = cell["difference"]
        return "–" if pd.isna(value) else "0" if value == 0 else f"{value:+.2g}"
    text = _number(cell["quantity"], cell[source])
    if source == "here" and np.isfinite(cell["here_ci95"]):
        text += f" ± {cell['here_ci95']:.1g}"
    if pd.notna(cell[f"{source}_std"]):
        text += f" ({cell[f'{source}_std']:.3g})"
    return text


def _number(name: str, value: float) -> str:
    """A number with as many digits as the paper prints: three significant ones, or decimals."""
    if pd.isna(value):
        return "–"
    if name.endswith("accuracy"):
        return f"{value:.3f}"
    return f"{value:#.3g}" if name in ("lss", "lsr") and value else f"{value:.3g}"


def as_text(table: PaperTable, form: str) -> str:
    """A table as ``csv`` or ``json`` (one number per row, all digits), ``md`` or ``latex``."""
    if form in ("csv", "json"):
        return layout.as_text(table.numbers, form)
    if form == "latex":
        notes = "".join(map(latex_comment, (table.title, *table.notes)))
        return notes + layout.latex(table.rows)
    shown = table.rows.set_axis([f"{a} {b}".strip() for a, b in table.rows.columns], axis=1)
    notes = "".join(f"\n{markdown_text(note)}\n" for note in table.notes)
    return f"{markdown_text(table.title)}\n\n{layout.markdown(shown)}{notes}"
