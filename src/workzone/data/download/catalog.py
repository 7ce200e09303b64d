"""Data sets that can be downloaded by name, and those whose owners want a registration first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workzone.data.download.listing import Listed, figshare_files, hub_files
from workzone.data.download.transfer import Client
from workzone.errors import DataError


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set.

    Attributes:
        kind: the source that reads it.
        licence: terms as the owners state them, and where they stand.
        page: where the data set is described.
        listing: asks for the files of a revision; None where the owners want a registration.
        wanted: endings of the names of files that are taken by default; empty for all.
    """

    kind: str
    licence: str
    page: str
    listing: Callable[[Client, str | None, str | None], Listed] | None = None
    wanted: tuple[str, ...] = ()


def _hub(repository: str) -> Callable[[Client, str | None, str | None], Listed]:
    return lambda client, revision, endpoint: hub_files(client, repository, revision, endpoint)


def _figshare(article: int) -> Callable[[Client, str | None, str | None], Listed]:
    return lambda client, revision, endpoint: figshare_files(client, article, revision, endpoint)


CATALOG: Mapping[str, Entry] = {
    "natix": Entry(
        "natix",
        "no licence is stated for the data set as a whole; each image may carry its own; ask the owners before any use "
        "beyond a test",
        "https://huggingface.co/datasets/natix-network-org/roadwork",
        _hub("natix-network-org/roadwork"),
        (".parquet", ".md"),
    ),
    "roadwork": Entry(
        "roadwork",
        "ODC-BY 1.0, https://opendatacommons.org/licenses/by/1-0/; discovered_images.zip has the licences of BDD100K "
        "and Mapillary",
        "https://doi.org/10.1184/R1/26093197",
        _figshare(26093197),
        ("images.zip", "annotations.zip"),
    ),
    "rdd2022": Entry(
        "rdd2022",
        "CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/",
        "https://doi.org/10.6084/m9.figshare.21431547",
        _figshare(21431547),
    ),
    "mapillary_vistas": Entry(
        "mapillary_vistas", "Mapillary Vistas research edition licence", "https://www.mapillary.com/dataset/vistas"
    ),
    "bdd100k": Entry("bdd100k", "BDD100K licence", "http://bdd-data.berkeley.edu"),
}
"""Data sets by name."""


def find(name: str) -> Entry:
    """Entry of a data set that can be downloaded; raises DataError for an unknown name or one behind a registration."""
    if name not in CATALOG:
        raise DataError(f"there is no data set {name!r}", fix=f"the names are {', '.join(CATALOG)}")
    entry = CATALOG[name]
    if entry.listing is None:
        raise DataError(
            f"the owners of {name} give it out after a registration only",
            where=entry.page,
            fix=f"register and download it there, then: workzone data import {entry.kind} FOLDER --out FOLDER",
        )
    return entry
