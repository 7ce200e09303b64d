"""Events as GeoJSON and as a WZDx 4.2 work-zone feed (CC0 specification of the USDOT)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from workzone.maps.events import Event

WZDX_VERSION = "4.2"
_NAMESPACE = uuid.UUID("2ad5a6c6-0a2c-4b2e-8f7a-0c6f1de2f4b3")


def iso(seconds: float) -> str:
    """UTC time as RFC 3339, to the second."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def geometry(event: Event) -> dict[str, Any]:
    """MultiPoint along the event; the order of traffic is not known, so it is no line."""
    return {"type": "MultiPoint", "coordinates": [list(p) for p in event.points]}


def to_geojson(events: Sequence[Event]) -> dict[str, Any]:
    """All events with what is known of each, whatever their status."""
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "id": e.id,
                "geometry": geometry(e),
                "properties": {
                    "status": e.status,
                    "confidence": round(e.confidence, 4),
                    "start": iso(e.start),
                    "last_seen": iso(e.last_seen),
                    "ends": iso(e.ends),
                    "passes": e.passes,
                    "sightings": e.sightings,
                    "passes_without_roadwork": e.negatives,
                    "abstentions": e.abstentions,
                    "checked_by_a_person": e.checked,
                },
            }
            for e in events
        ],
    }


def to_wzdx(
    events: Sequence[Event], *, publisher: str, organisation: str, now: float, model: str, licence: bool = False
) -> dict[str, Any]:
    """Feed of the active events: those of two passes or more, or confirmed by a person.

    What a camera does not know is said to be unknown: lanes, roads and direction, and every date and position is
    marked as unverified.

    Args:
        events: of any status; only active ones are published.
        publisher, organisation: who publishes, and whose data they are.
        now: seconds since 1970 of this update.
        model: name and version of the detector.
        licence: state the CC0 licence, the only one the specification allows.
    """
    source = str(uuid.uuid5(_NAMESPACE, f"{publisher}/{organisation}"))
    info: dict[str, Any] = {
        "publisher": publisher,
        "version": WZDX_VERSION,
        "update_date": iso(now),
        "data_sources": [{"data_source_id": source, "organization_name": organisation, "update_date": iso(now)}],
    }
    if licence:
        info["license"] = "https://creativecommons.org/publicdomain/zero/1.0/"
    return {
        "feed_info": info,
        "type": "FeatureCollection",
        "features": [_feature(e, source, model) for e in events if e.status == "active"],
    }


def _feature(e: Event, source: str, model: str) -> dict[str, Any]:
    by = "confirmed by a person" if e.checked else f"seen in {e.passes} passes"
    return {
        "id": e.id,
        "type": "Feature",
        "properties": {
            "core_details": {
                "event_type": "work-zone",
                "data_source_id": source,
                "road_names": ["unknown"],
                "direction": "unknown",
                "description": f"Roadwork on images, {by}, confidence {e.confidence:.2f}, {model}.",
                "creation_date": iso(e.start),
                "update_date": iso(e.last_seen),
            },
            "start_date": iso(e.start),
            "end_date": iso(e.ends),
            "is_start_date_verified": False,
            "is_end_date_verified": False,
            "is_start_position_verified": False,
            "is_end_position_verified": False,
            "location_method": "other",
            "vehicle_impact": "unknown",
        },
        "geometry": geometry(e),
    }
