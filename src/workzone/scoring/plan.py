"""What is to be scored, cut into shards whose names follow from their content, and the folder that receives them."""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workzone.errors import ArtifactError, ConfigError, DataError, RunLockedError
from workzone.files import PARTIAL, atomic_path, read_json, sha256_json, write_json

SCHEMA = "workzone-score-1"
SHARD_SIZE = 1024
_FOLDER = 1000
"""Shards in one folder, as folders of very many files are slow to list."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything beside the names of the images that the rows depend on.

    Attributes:
        bundle_sha256: the bundle.
        void_sha256: the mark of its void certificate, None without one.
        max_pixels: largest image that is decoded.
        budget: operating point of a cascade, None for the bundle's own.
        columns: metadata for the calibrator, the same for all images.
        shard_size: images of a shard.
        device: where the networks run; another one rounds differently.
    """

    bundle_sha256: str
    void_sha256: str | None
    max_pixels: int
    budget: float | None
    columns: tuple[tuple[str, str], ...]
    shard_size: int
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Shard:
    """Some images in a row of the list.

    Attributes:
        index: place of the shard.
        start: first byte of its names in the list.
        length: bytes of its names.
        count: images.
        address: 16 hex digits over the options and its names.
    """

    index: int
    start: int
    length: int
    count: int
    address: str

    @property
    def name(self) -> str:
        """Path of its file below the output folder."""
        return f"shards/{self.index // _FOLDER:05d}/part-{self.index:08d}-{self.address}.parquet"


@dataclass(frozen=True, slots=True)
class Output:
    """Places in the output folder."""

    root: Path

    @property
    def names(self) -> Path:
        """The list: every name ended by a zero byte."""
        return self.root / "images.lst"

    @property
    def plan(self) -> Path:
        """What the shards belong to."""
        return self.root / "plan.json"

    @property
    def shards(self) -> Path:
        """Folder of the shards."""
        return self.root / "shards"

    @property
    def bad(self) -> Path:
        """Images that could not be used."""
        return self.root / "bad.csv"

    @property
    def summary(self) -> Path:
        """Figures of the whole and of the last call."""
        return self.root / "summary.json"


@contextmanager
def locked(output: Output) -> Iterator[None]:
    """The output folder for this process alone; what a killed one left half-written is removed.

    Raises:
        ConfigError: the folder holds something else.
        RunLockedError: another process scores into it.
    """
    root = output.root
    if root.exists() and not output.plan.exists() and _foreign(output):
        raise ConfigError("the folder holds something else", where=str(root), fix="name a new or an empty folder")
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a") as stream:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunLockedError(
                "another process scores into this folder", where=str(root), fix="wait for it, or name another folder"
            ) from error
        for path in (*root.glob(".*"), *output.shards.rglob(".*")):
            if re.fullmatch(PARTIAL, path.name):
                path.unlink(missing_ok=True)
        yield


def _foreign(output: Output) -> bool:
    """Whether the folder holds more than a call leaves that was killed before it had a plan."""
    own = (".lock", output.names.name)
    return any(p.name not in own and not re.fullmatch(PARTIAL, p.name) for p in output.root.iterdir())


def make_plan(names: Iterable[bytes], options: Options, output: Output) -> list[Shard]:
    """Write the list and the plan, and return the shards.

    An output folder that was begun goes on when it was begun for the same: equal options, and a list that is equal or
    has grown at its end. Names and options alone count; the files are taken to stay as they are.

    Raises:
        DataError: no image, or a name with a zero byte.
        ConfigError: the folder was begun for something else.
    """
    before = _read(output)
    if before is not None:
        _same_options(before["options"], options, output)
    shards: list[Shard] = []
    digest, known = hashlib.sha256(), None
    with atomic_path(output.names) as partial:
        at = 0
        with partial.open("wb") as stream:
            for index, chunk in enumerate(_chunks(names, options.shard_size)):
                content = b"".join(name + b"\0" for name in chunk)
                if content.count(b"\0") != len(chunk):
                    raise DataError("the name of an image holds a zero byte", where=f"shard {index}")
                if before is not None and at <= before["bytes"] <= at + len(content):
                    head = digest.copy()
                    head.update(content[: before["bytes"] - at])
                    known = head.hexdigest()
                stream.write(content)
                digest.update(content)
                address = sha256_json([SCHEMA, _values(options), hashlib.sha256(content).hexdigest()])[:16]
                shards.append(Shard(index, at, len(content), len(chunk), address))
                at += len(content)
        if not shards:
            raise DataError("no images were given", fix="give a folder, a table or a list that names images")
        if before is not None and known != before["sha256"]:
            raise ConfigError(
                f"the images are others than those this folder was begun with ({before['n']:,} then, "
                f"{sum(s.count for s in shards):,} now)",
                where=str(output.root),
                fix="name a new --out; only a list that grows at its end may go on in the same folder",
            )
    _drop_outgrown(output, shards)
    n = sum(s.count for s in shards)
    write_json(
        output.plan,
        {"schema": SCHEMA, "options": _plain(options), "n": n, "bytes": at, "sha256": digest.hexdigest()},
    )
    return shards


def _chunks(names: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    for name in names:
        chunk.append(name)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _values(options: Options) -> dict[str, Any]:
    values = asdict(options)
    if options.device == "cpu":  # as before there were others, so that what was begun then goes on
        del values["device"]
    return values


def _plain(options: Options) -> dict[str, Any]:
    return _values(options) | {"columns": dict(options.columns)}


def _read(output: Output) -> dict[str, Any] | None:
    if not output.plan.exists():
        return None
    try:
        stored: dict[str, Any] = read_json(output.plan)
        if stored["schema"] != SCHEMA or not isinstance(stored["bytes"], int):
            raise ValueError("unknown schema")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"the plan cannot be read: {error}", where=str(output.plan), fix="name a new --out"
        ) from error
    return stored


def _same_options(stored: Mapping[str, Any], options: Options, output: Output) -> None:
    asked = _plain(options)
    told = [name for name in {**asked, **stored} if stored.get(name) != asked.get(name)]
    if told:
        words = {"bundle_sha256": "bundle", "void_sha256": "state of the certificate"}
        raise ConfigError(
            f"this folder was begun with another {', '.join(words.get(t, t.replace('_', ' ')) for t in told)}",
            where=str(output.root),
            fix="name a new --out",
        )


def _drop_outgrown(output: Output, shards: Sequence[Shard]) -> None:
    """The last shard of a list that has grown since is scored anew as part of a larger one."""
    wanted = {output.root / s.name for s in shards}
    for path in shard_files(output):
        if path not in wanted:
            path.unlink()


def shard_files(output: Output) -> list[Path]:
    """Finished shards, in order."""
    return sorted(output.shards.glob("*/part-*.parquet"))
