"""Options and their reading that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import typer

from workzone.errors import ConfigError


class Device(StrEnum):
    """Where the network of a bundle runs."""

    cpu = "cpu"
    cuda = "cuda"


DEVICE = typer.Option(
    Device.cpu, "--device", help="Where the network runs; cuda needs onnxruntime-gpu.", envvar="WORKZONE_DEVICE"
)
MAX_PIXELS = typer.Option(120_000_000, "--max-pixels", min=1, help="Refuse larger images.")
BUDGET = typer.Option(
    None,
    "--budget",
    min=0.0,
    help="Bundles with a cascade: mean share of the cost of all views to spend, above 1 a mean number of views.",
    metavar="SHARE",
)
SLICES = typer.Option(
    None,
    "--slice",
    help="A metadata column that the calibrator needs, the same for all images; an empty value means unknown.",
    metavar="COLUMN=VALUE",
)
FORMAT = typer.Option(
    None,
    "--format",
    "-f",
    help="table, jsonl, csv or parquet; by the suffix of --out, else table.",
    metavar="FORMAT",
)
ANSWERS = typer.Option(None, "--out", "-o", help="Write to this file, at once when all is done.", metavar="FILE")


def slice_columns(words: Sequence[str]) -> dict[str, str]:
    """Columns from the words of ``--slice``; raises ConfigError on one that is no COLUMN=VALUE."""
    columns = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name.strip():
            raise ConfigError(
                f"{word!r} is no COLUMN=VALUE", where="--slice", fix="say for example --slice source=van7"
            )
        columns[name.strip()] = value.strip()
    return columns


def or_starter(bundle: Path | None) -> Path:
    """``bundle``, or else the starter bundle, which is said; raises ConfigError where the package has none."""
    if bundle is not None:
        return bundle
    from workzone.bundle.starter import SENTENCE, starter_bundle

    starter = starter_bundle()
    if starter is None:
        raise ConfigError("no bundle was given", fix="add --bundle FOLDER or set WORKZONE_BUNDLE")
    note(f"{SENTENCE} For other commands it lies in {starter}")
    return starter


def note(text: str) -> None:
    """A line for people, on standard error, so that standard output stays clean for results."""
    typer.echo(text, err=True)
