"""Which files a data set has, with sizes and checksums, as the hub's or the archive's interface states them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from workzone.data.download.transfer import Checksum, Client
from workzone.errors import DataError

HUB = "https://huggingface.co"
FIGSHARE = "https://api.figshare.com"
_REVISION = re.compile(r"[A-Za-z0-9._/-]{1,100}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file: its path in the data set, address, size in bytes and checksum."""

    path: str
    url: str
    size: int
    checksum: Checksum


@dataclass(frozen=True, slots=True)
class Listed:
    """Files of one revision; ``revision`` names exactly this state of the data set."""

    revision: str
    files: tuple[RemoteFile, ...]


def safe_path(name: object, where: str) -> str:
    """A path that stays in its folder; raises DataError for any other."""
    path = PurePosixPath(str(name))
    if not str(name) or path.is_absolute() or ".." in path.parts or "\\" in str(name) or "\0" in str(name):
        raise DataError(f"the listing names the file {name!r}, which leaves the folder", where=where)
    return str(path)


def _whole(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"the listing has {value!r} where a whole number belongs", where=where)
    return value


def hub_files(client: Client, repository: str, revision: str | None, endpoint: str | None) -> Listed:
    """Files of a data set on the Hugging Face Hub at one commit.

    Large files carry a SHA-256; small ones the hash that git gives them.

    Raises:
        DataError: no network, no such data set or revision, or a listing that cannot be understood.
    """
    base = endpoint or HUB
    wanted = revision or "main"
    if not _REVISION.fullmatch(wanted) or ".." in wanted:
        raise DataError(f"{wanted!r} is no revision", fix="give a commit, a branch or a tag")
    url = f"{base}/api/datasets/{repository}/revision/{quote(wanted, safe='')}?blobs=true"
    body = client.json(url)
    commit = body.get("sha") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise DataError("the hub's answer names no commit", where=url)
    files = []
    for entry in body.get("siblings") or []:
        path = safe_path(entry.get("rfilename"), url)
        lfs: Mapping[str, Any] = entry.get("lfs") or {}
        digest = str(lfs.get("sha256") or lfs.get("oid") or "")
        known = Checksum("sha256", digest) if digest else Checksum("git", str(entry.get("blobId") or ""))
        known.check_form(f"{url} {path}")
        size = _whole(lfs.get("size", entry.get("size")), url)
        # The commit, not the branch: a branch may move between listing and download.
        files.append(RemoteFile(path, f"{base}/datasets/{repository}/resolve/{commit}/{quote(path)}", size, known))
    return Listed(commit, tuple(sorted(files, key=lambda f: f.path)))


def figshare_files(client: Client, article: int, revision: str | None, endpoint: str | None) -> Listed:
    """Files of an article on figshare (CMU KiltHub is one); the revision is a version number.

    Raises:
        DataError: no network, no such version, or a listing that cannot be understood.
    """
    base = endpoint or FIGSHARE
    if revision is not None and not revision.isdecimal():
        raise DataError(f"{revision!r} is no version", fix="give a number, such as 1")
    url = f"{base}/v2/articles/{article}" + (f"/versions/{revision}" if revision else "")
    body = client.json(url)
    if not isinstance(body, dict) or not isinstance(body.get("files"), list):
        raise DataError("the archive's answer lists no files", where=url)
    files = []
    for entry in body["files"]:
        path = safe_path(entry.get("name"), url)
        known = Checksum("md5", str(entry.get("computed_md5") or entry.get("supplied_md5") or ""))
        known.check_form(f"{url} {path}")
        files.append(RemoteFile(path, str(entry.get("download_url")), _whole(entry.get("size"), url), known))
    return Listed(f"version {_whole(body.get('version'), url)}", tuple(sorted(files, key=lambda f: f.path)))
