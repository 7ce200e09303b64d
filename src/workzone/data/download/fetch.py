"""Download of a whole data set into a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workzone.data.download.catalog import find
from workzone.data.download.transfer import Client, check_address, fetch
from workzone.errors import ConfigError, DataError
from workzone.files import write_atomic, write_json

_SPARE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Downloaded:
    """Result of a download: where it is, which state of the data set, files in all and files fetched by this call."""

    folder: Path
    revision: str
    files: int
    fetched: int
    size: int


def licence_error(name: str, licence: str, page: str) -> ConfigError:
    """The error for terms that were not accepted."""
    return ConfigError(
        f"the licence of {name} was not accepted: {licence}",
        where=page,
        fix="read it there; --accept-licence says that you accept it",
    )


def download(
    name: str,
    out: Path,
    *,
    accept_licence: bool,
    revision: str | None = None,
    endpoint: str | None = None,
    files: Sequence[str] = (),
    client: Client | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Downloaded:
    """Download the data set ``name`` into ``out`` and write ``download.json`` beside it.

    Called again it verifies what is there and goes on with the rest, at the same revision unless another is given.

    Args:
        name: of ``CATALOG``.
        out: folder.
        accept_licence: whether the user accepts the licence that the entry names.
        revision: commit, branch or tag on the hub, version number on figshare; the newest by default.
        endpoint: address of a mirror.
        files: endings of the names of files to take instead of the usual ones.
        client: how servers are asked; its token comes from ``HF_TOKEN`` by default, for the hub only.
        progress: called with bytes done and bytes in all.

    Raises:
        ConfigError: the licence was not accepted.
        DataError: unknown name, registration needed, no network, refusal, full disk or wrong checksum.
    """
    entry = find(name)
    if not accept_licence:
        raise licence_error(name, entry.licence, entry.page)
    if out.exists() and not out.is_dir():
        raise ConfigError("the output is no folder", where=str(out), fix="give the path of a folder")
    if endpoint is not None:
        endpoint = check_address(endpoint.rstrip("/"))
    hub = endpoint is None and "huggingface" in entry.page
    client = client or Client(token=os.environ.get("HF_TOKEN") if hub else None)
    pinned = out / ".revision"
    if revision is None and pinned.is_file():
        revision = pinned.read_text(encoding="utf-8").strip()
    assert entry.listing is not None
    listed = entry.listing(client, revision, endpoint)
    endings = tuple(files) or entry.wanted
    wanted = [f for f in listed.files if not endings or f.path.endswith(endings)]
    if not wanted:
        raise DataError(
            f"none of the {len(listed.files)} files ends in {' or '.join(endings)}",
            where=entry.page,
            fix=f"they are {', '.join(f.path for f in listed.files[:20])}",
        )
    out.mkdir(parents=True, exist_ok=True)
    _room(out, sum(f.size for f in wanted if not (out / f.path).is_file()))
    # Written first, so that a killed download goes on with the same state of the data set.
    write_atomic(pinned, listed.revision.removeprefix("version "))
    total = sum(f.size for f in wanted)
    done = fetched = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    for file in wanted:
        fetched += fetch(client, file.url, out / file.path, file.size, file.checksum, step=step)
    body = {
        "name": name,
        "page": entry.page,
        "licence": entry.licence,
        "licence_accepted": True,
        "revision": listed.revision,
        "files": {f.path: {"size": f.size, f.checksum.kind: f.checksum.value} for f in wanted},
    }
    write_json(out / "download.json", body)
    return Downloaded(out, listed.revision, len(wanted), fetched, total)


def _room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed + _SPARE > free:
        raise DataError(
            f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free", where=str(out), fix="make room"
        )
