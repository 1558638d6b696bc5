"""The command that measures a model of the user's: geosweep probe."""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from models.messages import plain
from scoring import storage
from scoring.probing.errors import ProbeError
from scoring.probing.result import ProbeResult, fitting
from tune_jobs import folder, lease
from tune_jobs.cluster.at import At
from tune_jobs.commands import options, sending, targets
from tune_jobs.errors import SweepError
from tune_jobs.terminal import output, say, table

app = typer.Typer()

Tokens = StrEnum("Tokens", ["all", "each", "first", "mean", "last"])
Null = StrEnum("Null", ["reinit", "shuffle"])


@app.command(rich_help_panel="Your own model")
def probe(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="torchvision:NAME, timm:NAME, transformers:FOLDER, or FILE.py:CALLABLE, a "
            "function in your file that returns the model.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Images: an .npz file with x_test, x or images; uint8, or numbers as the model "
            "takes them.",
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Text, for transformers:FOLDER: every line is a sample."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A state dict of torch or safetensors. Default: random weights."
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Other weights of the same model, measured as well."),
    ] = None,
    blocks: Annotated[
        str,
        typer.Option(
            metavar="REGEX",
            help="Which modules are the blocks: a regular expression for their whole names. auto "
            "finds residual blocks.",
        ),
    ] = "auto",
    branches: Annotated[
        bool,
        typer.Option(
            "--branches",
            help="The blocks return what the model adds to their input, not the next state.",
        ),
    ] = False,
    tokens: Annotated[
        Tokens | None,
        typer.Option(
            help="What a point is, where states are sequences. Default: all tokens of an image, "
            "each token of a text."
        ),
    ] = None,
    points: Annotated[
        int, typer.Option(min=1, metavar="N", help="Measure the first N images or lines.")
    ] = 500,
    transport: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="M",
            help="Also compare with the optimal transport of the first M points: OTS, geodesic "
            "excess and the curve of measures. 0 leaves this out.",
        ),
    ] = 0,
    null: Annotated[
        list[Null] | None,
        typer.Option(
            "--null",
            help="The baselines: a copy with new weights, or with shuffled blocks, on the same "
            "points. Repeatable. Default: both.",
        ),
    ] = None,
    no_null: Annotated[bool, typer.Option("--no-null", help="Measure no copies.")] = False,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many samples the model gets at a time.")
    ] = 32,
    longest: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most tokens of a line; the others are cut off.")
    ] = 128,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Where the model runs: cpu, cuda or cuda:1.")
    ] = "cpu",
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results; those of an earlier probe are replaced. Default: "
            "runs/probe-MODEL, or in the cluster's storage.",
        ),
    ] = None,
    cluster: options.Cluster = None,
    slurm: options.Slurm = None,
    follow: options.Follow = False,
) -> None:
    """Measure how straight the tracks of your own model are, stage by stage.

    It runs the model on images or text, follows the states between its
    residual blocks, and prints LSS and other scores with their baselines.
    runs/probe-MODEL gets the numbers (JSON, Parquet) and figures. Nothing is
    downloaded. docs/probe.md explains the scores.

    With --cluster or --slurm it is a job there. Files are sent along to a Ray
    cluster, and Slurm's nodes read them where they are.

    [b]geosweep probe torchvision:resnet18 --weights w.pt --data images.npz[/]
    [b]geosweep probe timm:vit_tiny_patch16_224 --data images.npz --transport 200[/]
    [b]geosweep probe transformers:my-gpt2 --text lines.txt[/]
    [b]geosweep probe net.py:build --weights a.pt --compare b.pt --data mine.npz[/]
    """
    if (data is None) == (text is None):
        raise SweepError("which points? --data FILE.npz, or --text FILE for transformers")
    if transport == 1:
        raise SweepError("--transport 1: should be 0, or 2 and more")
    if no_null and null:
        raise SweepError("--no-null and --null: give one of them")
    name = f"probe-{_short(model)}"
    if cluster or slurm:
        given = {"--data": data, "--text": text, "--weights": weights, "--compare": compare}
        sent = {option: path for option, path in given.items() if path is not None}
        words = [f"--blocks={blocks}", f"--points={points}", f"--transport={transport}"]
        words += [f"--batch={batch}", f"--longest={longest}"]
        words += [f"--null={one}" for one in null or []]
        if no_null:
            words.append("--no-null")
        words += [f"--tokens={tokens}"] if tokens else []
        if branches:
            words.append("--branches")
        at = At(cluster, None, slurm)
        sending.probe(at, name, model, sent, words, out, device, follow)
    from tune_jobs.probing import model as models  # torch takes seconds to import
    from tune_jobs.probing.output import write
    from tune_jobs.probing.run import run

    loaded = models.load(model, weights)
    others = None if compare is None else models.load(model, compare, "--compare")
    root = folder.absolute(out or f"runs/{name}")
    about: dict[str, Any] = {"model": model, "data": data or text}
    settings: dict[str, Any] = {
        "blocks": blocks,
        "branches": branches,
        "tokens": str(tokens or ("each" if text else "all")),
        "transport": transport,
        "null": [] if no_null else [str(one) for one in null or Null],
    }
    names = [weights or "random weights", *([compare] if compare else [])]
    if len(set(names)) < len(names):
        raise SweepError(f"--compare {compare}: the same file as --weights")
    _check(root, about, names if out is None else None)
    results: dict[str, ProbeResult] = {}
    try:
        for called, one in zip(names, filter(None, (loaded, others)), strict=True):
            found, warned = run(one, (data, text), (points, batch, longest), device, settings)
            results[called] = found
            if len(names) > 1:
                say(called)
            _show(found)
            for message in warned:
                say(f"warning: {message}")
    except ProbeError as error:
        raise SweepError(*str(error).splitlines()) from error
    written = write(root, about | settings, results)
    say(f"{', '.join(written)} in {folder.shown(root)}")


def _show(result: ProbeResult) -> None:
    """The table of a result, and what was matched and skipped."""
    headings, *rows = fitting(result.table(), output().width)
    made = table()
    for heading in headings:
        made.add_column(heading, justify="right")
    for row in rows:
        made.add_row(*row)
    output().print(made)
    for line in result.notes():
        say(line)


def _short(model: str) -> str:
    kind, _, name = model.rpartition(":")
    libraries = ("torchvision", "timm", "transformers")
    return Path(name).name if kind in libraries else f"{Path(kind).stem}-{name}"


def _check(root: str, about: Mapping[str, Any], weights: Sequence[str] | None) -> None:
    """Check the folder for the results before anything is measured.

    Args:
        root: of the folder.
        about: the model and its points.
        weights: what is measured; None if the user named the folder, whose results are replaced.

    Raises:
        SweepError: it cannot be written, belongs to a sweep, or has another probe's results.
    """
    from tune_jobs.probing.output import FILE

    lease.refuse_file(root)
    targets.refuse_sweep(root)
    if weights is not None and (content := storage.read_file(root, FILE)) is not None:
        try:
            there = json.loads(content)
            before = {**{name: there[name] for name in about}, "weights": [*there["results"]]}
        except (ValueError, LookupError, TypeError, RecursionError):
            before = dict.fromkeys((*about, "weights"))
        for name, value in {**about, "weights": [*weights]}.items():
            if before[name] != value:
                raise SweepError(
                    f"{folder.shown(root)}: has the results of other {name} "
                    f"({plain(before[name])}); --out DIR names another folder, or this one, whose "
                    "results are then replaced"
                )
    if "://" not in root:
        new = [place for place in (Path(root), *Path(root).parents) if not place.exists()]
        Path(root).mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), root)
        for place in new:  # the model may still fail
            place.rmdir()
