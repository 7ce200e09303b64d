"""One row about each image, as ``predict`` and ``score`` write them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from workzone.decisions.types import Decision
from workzone.errors import ImageError, needs_extra
from workzone.files import shown

if TYPE_CHECKING:
    import polars as pl

    from workzone.bundle.runtime import Decider
    from workzone.vision.remote import Remote

Place = TypeVar("Place", bound="Path | Remote")
COLUMNS = (
    "path",
    "decision",
    "probability",
    "log_odds",
    "prediction_set",
    "reason",
    "error",
    "seconds",
    "pooled_probability",
    "pooled_decision",
    "stage",
    "cost",
)
"""Columns of tables about images, frames of videos included."""


def answered(
    detector: Decider,
    places: Iterable[Place],
    *,
    workers: int,
    max_pixels: int,
    columns: Mapping[str, Any] | None,
) -> Iterator[tuple[Place, Decision | ImageError]]:
    """Every place with what came of it, in order, unusable ones in their turn; taken only a few ahead of the answers.

    The arguments are those of ``Decider.predict``.
    """
    waiting: deque[Place] = deque()
    errors: dict[int, ImageError] = {}

    def taken() -> Iterator[Place]:
        for place in places:
            waiting.append(place)
            yield place

    at = 0
    for index, decision in detector.predict(
        taken(), on_error=errors.__setitem__, workers=workers, max_pixels=max_pixels, columns=columns
    ):
        for bad in range(at, index):
            yield waiting.popleft(), errors.pop(bad)
        yield waiting.popleft(), decision
        at = index + 1
    for bad, place in enumerate(waiting, at):
        yield place, errors[bad]


def image_row(path: PathLike[str], decision: Decision, *, views: bool = False) -> dict[str, Any]:
    """Row of an image that was decided on."""
    record = decision.to_dict()
    if not views:
        del record["views"]
    return {"path": shown(path), **record, "error": None}


def bad_row(path: PathLike[str], error: ImageError) -> dict[str, Any]:
    """Row of an image that could not be used."""
    return {"path": shown(path), "decision": None, "error": error.reason}


def write_parquet(
    rows: Iterable[Mapping[str, Any]],
    path: Path,
    *,
    columns: Sequence[str] = COLUMNS,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write ``rows`` to ``path``; equal rows give equal bytes.

    Args:
        rows: about images, frames of videos included.
        path: written as it is; the caller makes it atomic.
        columns: their order; the prediction set is among them.
        metadata: stored in the footer.

    Raises:
        MissingExtraError: polars is not installed.
    """
    types = {name: kind for name, kind in _types().items() if name in columns}
    import polars as pl

    flat = [{k: row.get(k) for k in types} | {"prediction_set": row.get("prediction_set", [])} for row in rows]
    frame = pl.DataFrame(flat, schema=types)
    frame.write_parquet(path, metadata=None if metadata is None else dict(metadata))


def _types() -> dict[str, pl.DataType]:
    """Stated, since unreadable files alone would leave nothing to infer types from."""
    with needs_extra("polars", "eval", feature="Parquet output"):
        import polars as pl
    return {
        "id": pl.String(),
        "path": pl.String(),
        "decision": pl.String(),
        "probability": pl.Float64(),
        "log_odds": pl.Float64(),
        "prediction_set": pl.List(pl.String()),
        "reason": pl.String(),
        "error": pl.String(),
        "seconds": pl.Float64(),
        "pooled_probability": pl.Float64(),
        "pooled_decision": pl.String(),
        "stage": pl.Int64(),
        "cost": pl.Float64(),
    }
