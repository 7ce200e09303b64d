"""Units of a split: images that must share a role because they show one place, sequence or picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from workzone.data.manifest import Manifest
from workzone.data.neighbours import cosine_pairs
from workzone.data.perceptual import UnionFind, near_edges

NEAR_DUPLICATE_BITS = 4
_METRES_PER_DEGREE = 111_195.0


def geographic_cell(latitude: float, longitude: float, metres: float) -> str:
    """Name of the square of about ``metres`` on a side that holds a point; rows of cells narrow with latitude."""
    row = math.floor(latitude * _METRES_PER_DEGREE / metres)
    # One width for the whole row of cells, or points of one cell would be numbered from different origins.
    middle = math.radians(max(-89.9, min(89.9, (row + 0.5) * metres / _METRES_PER_DEGREE)))
    column = math.floor(longitude * _METRES_PER_DEGREE * math.cos(middle) / metres)
    return f"{row}:{column}"


def find_units(
    manifest: Manifest,
    *,
    near_duplicates: bool = True,
    cell_metres: float | None = None,
    columns: Sequence[str] = (),
    embeddings: NDArray[np.floating] | None = None,
    similarity: float = 0.95,
) -> list[str]:
    """Name of the unit of each image: connected components over group, picture hash, content, place and embedding.

    Sources do not matter: images of two data sets that show one drive or one picture come into one unit.

    Args:
        manifest: the images.
        near_duplicates: join images whose perceptual hashes differ in at most 4 of 64 bits.
        cell_metres: join images in one geographic cell of this size; None ignores positions.
        columns: further columns, such as ``sequence``, of which equal values join images.
        embeddings: (N, D) in the order of the rows; images of cosine ``similarity`` or more are joined. A row of zeros
            or NaN joins nothing. Neighbouring frames, which hashes miss, are found this way.
        similarity: from which cosine on two images show one place.

    Raises:
        ValueError: ``cell_metres`` is not positive, a column is unknown, or the embeddings do not fit.
    """
    if cell_metres is not None and not cell_metres > 0:
        raise ValueError("cell_metres must be positive")
    if embeddings is not None and (embeddings.ndim != 2 or len(embeddings) != len(manifest)):
        raise ValueError(f"embeddings must have shape ({len(manifest)}, D), not {embeddings.shape}")
    if unknown := [c for c in columns if c not in manifest.frame.columns]:
        raise ValueError(f"the manifest has no column {unknown[0]!r}")
    frame, groups = manifest.frame, manifest.groups
    sets = UnionFind(frame.height)
    sets.join_equal(groups)
    sets.join_equal(frame["sha256"].to_list())
    if near_duplicates:
        hashes = frame["phash"].to_list()
        known = [i for i, value in enumerate(hashes) if value is not None]
        for a, b in near_edges([hashes[i] for i in known], NEAR_DUPLICATE_BITS):
            sets.union(known[a], known[b])
    for column in columns:
        sets.join_equal(None if v is None else str(v) for v in frame[column].to_list())
    if embeddings is not None:
        for a, b in cosine_pairs(embeddings, similarity):
            sets.union(a, b)
    if cell_metres is not None:
        points = zip(frame["latitude"].to_list(), frame["longitude"].to_list(), strict=True)
        sets.join_equal(None if lat is None else geographic_cell(lat, lon, cell_metres) for lat, lon in points)
    # The first group in alphabetical order names the unit, so that the order of rows does not matter.
    names: dict[int, str] = {}
    roots = [sets.find(i) for i in range(frame.height)]
    for root, group in zip(roots, groups, strict=True):
        names[root] = min(names.get(root, group), group)
    return [names[root] for root in roots]
