"""Copies within a data set: equal bytes, the same picture saved again, and pictures that a network finds alike."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workzone.data.manifest import Manifest
from workzone.data.neighbours import cosine_pairs
from workzone.data.perceptual import UnionFind, near_pairs

Kind = Literal["exact_copy", "near_duplicate", "similar"]
HASH_BITS = 8
SAME_PICTURE = 0.95
SIMILAR = 0.97


@dataclass(frozen=True, slots=True)
class Cluster:
    """Images that are one picture, or look like one.

    Attributes:
        kind: exact_copy, near_duplicate, or similar.
        members: rows of the manifest, the one to keep first.
        conflict: whether the labels of the members differ.
    """

    kind: Kind
    members: tuple[int, ...]
    conflict: bool


def find_clusters(
    manifest: Manifest,
    *,
    squares: NDArray[np.floating] | None = None,
    embeddings: NDArray[np.floating] | None = None,
    similarity: float = SIMILAR,
) -> list[Cluster]:
    """Clusters of copies, each image in at most one of each kind.

    Equal SHA-256 makes exact copies. Perceptual hashes within 8 of 64 bits are near duplicates if the reduced grey
    pictures correlate by 0.95 too; without ``squares`` the hashes alone decide, within 4 bits. Images of cosine
    ``similarity`` or more that are in different groups are similar: hashes miss neighbouring frames, embeddings find
    them, and also other views of one kind of scene, so nothing should be dropped for that alone.

    Args:
        manifest: images with ``sha256`` and ``phash``.
        squares: (N, 32, 32) grey values, NaN where an image could not be read.
        embeddings: (N, D), rows of NaN for unknown ones.
        similarity: least cosine.
    """
    frame, n = manifest.frame, len(manifest)
    exact, near = UnionFind(n), UnionFind(n)
    content = frame["sha256"].to_list()
    exact.join_equal(content)
    near.join_equal(content)
    hashes = frame["phash"].to_list()
    known = [i for i, h in enumerate(hashes) if h is not None]
    flat = None if squares is None else _unit(squares.reshape(n, -1))
    for a, b, distance in near_pairs([hashes[i] for i in known], HASH_BITS if flat is not None else HASH_BITS // 2):
        i, j = known[a], known[b]
        if flat is None or (distance <= HASH_BITS and float(flat[i] @ flat[j]) >= SAME_PICTURE):
            near.union(i, j)
    clusters = _clusters(manifest, exact, "exact_copy", None) + _clusters(manifest, near, "near_duplicate", exact)
    if embeddings is not None:
        similar, groups = UnionFind(n), manifest.groups
        for i, j in cosine_pairs(embeddings, similarity):
            if groups[i] != groups[j] and near.find(i) != near.find(j):
                similar.union(i, j)
        clusters += _clusters(manifest, similar, "similar", near)
    return clusters


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    centred = rows.astype(np.float64) - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    # A flat picture correlates with nothing, not even another flat one.
    return np.asarray(np.where(length > 1e-6, centred / np.maximum(length, 1e-6), 0.0))


def _clusters(manifest: Manifest, sets: UnionFind, kind: Kind, finer: UnionFind | None) -> list[Cluster]:
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(len(manifest)):
        members[sets.find(i)].append(i)
    frame = manifest.frame
    paths = manifest.paths
    ids, labels = frame["id"].to_list(), frame["label"].to_list()
    area = [(w or 0) * (h or 0) for w, h in zip(frame["width"].to_list(), frame["height"].to_list(), strict=True)]
    found = []
    for rows in members.values():
        # A cluster that a finer kind has named whole says nothing new.
        if len(rows) < 2 or (finer is not None and len({finer.find(i) for i in rows}) == 1):
            continue
        # Of equally large ones the file with more bytes has lost least.
        rows.sort(key=lambda i: (-area[i], -_bytes(paths[i]), ids[i]))
        known = {labels[i] for i in rows} - {None}
        found.append(Cluster(kind, tuple(rows), len(known) > 1))
    return found


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
