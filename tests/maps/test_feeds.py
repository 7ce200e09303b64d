from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.browser import chromium, shot, window
from workzone.errors import ConfigError, DataError
from workzone.maps.events import Event
from workzone.maps.feeds import to_geojson, to_wzdx
from workzone.maps.page import render
from workzone.maps.sightings import parse_time
from workzone.maps.tracks import read_track

Call = Callable[..., Any]
WZDX = Path(os.environ.get("WORKZONE_SHARED", Path(__file__).parents[3] / "shared")) / "wzdx"


def event(status: str = "active", points: tuple[tuple[float, float], ...] = ((8.0, 50.0), (8.001, 50.0))) -> Event:
    return Event(
        "0b6f6b9e-8d1d-5a54-9f6c-3f0c3a8f5f0e", points, 1e9, 1.0e9 + 60, 1.1e9, 0.93, 2, 6, 1, 3, False, status
    )  # type: ignore[arg-type]


def feed(*events: Event) -> dict[str, object]:
    return to_wzdx(events, publisher="City", organisation="City", now=1.0e9, model="m 1", licence=True)


def validator():  # type: ignore[no-untyped-def]
    """Validator of WorkZoneFeed.json with its references read from the folder; GeoJSON's own schema is not there."""
    pytest.importorskip("jsonschema")
    if not WZDX.is_dir():
        pytest.skip("the WZDx schemas are not beside the checkout")
    from jsonschema import Draft7Validator
    from referencing import Registry, Resource

    geometry = {
        "type": "object",
        "required": ["type", "coordinates"],
        "properties": {"coordinates": {"type": "array", "items": {"type": "array", "minItems": 2}}},
    }

    def read(uri: str) -> Resource:
        if uri.startswith("https://geojson.org/schema/"):
            kind = uri.rpartition("/")[2].removesuffix(".json")
            schema = geometry | {"properties": geometry["properties"] | {"type": {"const": kind}}}
            return Resource.from_contents({"$schema": "http://json-schema.org/draft-07/schema#", **schema})
        return Resource.from_contents(json.loads((WZDX / uri.rpartition("/")[2]).read_text()))

    schema = json.loads((WZDX / "WorkZoneFeed.json").read_text())
    return Draft7Validator(schema, registry=Registry(retrieve=read))


def test_the_feed_follows_the_schema_and_the_schema_can_refuse() -> None:
    check = validator()
    assert list(check.iter_errors(feed(event(), event(points=((8.0, 50.0),))))) == []
    example = json.loads((WZDX / "scenario1_simple_multipoint_example.geojson").read_text())
    assert list(check.iter_errors(example)) == []
    broken = feed(event())
    broken["features"][0]["properties"]["vehicle_impact"] = "none"  # type: ignore[index]
    assert list(check.iter_errors(broken))


def test_only_active_events_are_published_and_nothing_is_called_verified() -> None:
    published = feed(event(), event("unconfirmed"), event("cleared"), event("expired"))["features"]
    assert len(published) == 1  # type: ignore[arg-type]
    properties = published[0]["properties"]  # type: ignore[index]
    assert properties["location_method"] == "other"
    assert properties["vehicle_impact"] == "unknown"
    assert not any(v for k, v in properties.items() if k.endswith("_verified"))
    assert len(to_geojson([event(), event("cleared")])["features"]) == 2


def test_the_page_asks_for_nothing_from_elsewhere() -> None:
    page = render(to_geojson([event()]), title="A <b> & c")
    assert "A &lt;b&gt; &amp; c" in page
    assert "img-src data:;" in page.replace('"', ";") or "img-src data:" in page
    assert "sourceMappingURL" not in page
    hostile = event()
    geo = to_geojson([hostile])
    geo["features"][0]["properties"]["status"] = "</script><script>alert(1)</script>"
    assert "</script><script>alert" not in render(geo, title="x")
    with_tiles = render(to_geojson([]), title="x", tiles="https://tiles.example/{z}/{x}/{y}.png")
    assert "https://tiles.example" in with_tiles
    for bad in ("tiles.png", "javascript:{z}{x}{y}", "https://x/{z}/{x}.png"):
        with pytest.raises(ConfigError):
            render(to_geojson([]), title="x", tiles=bad)


def test_tracks(tmp_path: Path) -> None:
    gpx = tmp_path / "t.gpx"
    points = "".join(
        f'<trkpt lat="{50 + i / 1000}" lon="8.0"><time>2026-05-01T12:00:{10 * i:02d}Z</time></trkpt>' for i in range(3)
    )
    gpx.write_text(
        f'<?xml version="1.0"?><gpx xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>{points}</trkseg></trk></gpx>'
    )
    track = read_track(gpx)
    start = parse_time("2026-05-01T12:00:00Z")
    lat, lon = track.at(np.array([start + 5, start + 20, start - 1, start + 21]))
    assert lat[:2] == pytest.approx([50.0005, 50.002])
    assert np.isnan(lat[2:]).all()
    assert lon[0] == 8.0
    gap = track.at(np.array([start + 5]), max_gap=5)[0]
    assert np.isnan(gap).all()
    table = tmp_path / "t.csv"
    table.write_text("time,latitude,longitude\n2026-05-01T12:00:00,50,8\n2026-05-01T12:00:10Z,50.001,8\n")
    assert read_track(table).latitude.tolist() == [50.0, 50.001]
    for name, text, message in (
        ("a.gpx", '<!DOCTYPE gpx [<!ENTITY a "b">]><gpx/>', "document type"),
        ("b.gpx", "<gpx><trkpt", "cannot be read"),
        ("c.gpx", "<gpx></gpx>", "0 fixes"),
        ("d.csv", "time,latitude,longitude\nnow,1,2\n", "line 2"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            read_track(tmp_path / name)


def test_the_command_line_from_a_table_to_a_page(call: Call, tmp_path: Path) -> None:
    rows = ["path,decision,probability,latitude,longitude,time,drive"]
    for drive, hour in (("a", 8), ("b", 15)):
        rows += [
            f"{i}.jpg,roadwork,0.95,{50 + i * 1e-4},8.0,2026-05-01T{hour:02d}:00:{i:02d}Z,{drive}" for i in range(5)
        ]
    rows += ["x.jpg,roadwork,0.9,,,,", "bad.jpg,,,,,,"]
    table = tmp_path / "p.csv"
    table.write_text("\n".join(rows) + "\n")
    done = call("map", table, "--out", tmp_path / "m", "--publisher", "City")
    assert done.code == 0, done.err
    assert "10 decisions (1 without place or time left out)" in done.out
    assert "1 active" in done.out
    assert json.loads((tmp_path / "m" / "wzdx.json").read_text())["feed_info"]["publisher"] == "City"
    with chromium() as browser:
        for narrow in (False, True):
            with window(browser, narrow=narrow) as (page, problems):
                page.goto((tmp_path / "m" / "map.html").as_uri())
                page.locator("[data-ready='1']").wait_for(state="attached")
                told = page.locator("#counts").inner_text()
                assert told.startswith("1 place. ")
                assert "--tiles" in told
                shot(page, "map-narrow" if narrow else "map")
                assert not problems


def test_without_a_position_the_command_says_what_to_do(call: Call, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("path,decision,probability\na.jpg,roadwork,0.9\n")
    done = call("map", table, "--out", tmp_path / "m")
    assert done.code == 2
    assert "--track" in done.err
