"""Positions on the sphere in metres, and the line of a place."""

from __future__ import annotations

import numpy as np

from workzone.predictions import FloatArray, IntArray

EARTH = 6_371_008.8
"""Mean radius of the earth in metres (IUGG)."""
MOST_POINTS = 50


def to_xyz(latitude: FloatArray, longitude: FloatArray) -> FloatArray:
    """(N, 3) metres from the centre of the earth; distances of some kilometres are straight to a millimetre."""
    lat, lon = np.radians(latitude), np.radians(longitude)
    return EARTH * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def along(longitude: FloatArray, latitude: FloatArray, rows: IntArray) -> tuple[tuple[float, float], ...]:
    """Distinct positions of ``rows`` as (longitude, latitude), in order along their main axis, at most fifty."""
    found = np.unique(np.round(np.stack([longitude[rows], latitude[rows]], axis=1), 6), axis=0)
    if len(found) > 2:
        centre = found.mean(axis=0)
        flat = (found - centre) * np.array([np.cos(np.radians(centre[1])), 1.0])
        axis = np.linalg.svd(flat, full_matrices=False)[2][0]
        found = found[np.argsort(flat @ axis, kind="stable")]
    if len(found) > MOST_POINTS:
        found = found[np.linspace(0, len(found) - 1, MOST_POINTS).round().astype(int)]
    return tuple((float(x), float(y)) for x, y in found)
