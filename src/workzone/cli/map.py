"""``workzone map``: from geotagged decisions to work-zone events, GeoJSON, a WZDx feed and a page."""

from __future__ import annotations

from pathlib import Path

import typer


def make_map(
    predictions: list[Path] = typer.Argument(
        ...,
        help="Tables of decisions as 'predict' writes them (CSV, Parquet, JSON lines), or folders of 'score'.",
        metavar="TABLE",
    ),
    out: Path = typer.Option(Path("map"), "--out", "-o", help="Folder of events.geojson, wzdx.json and map.html."),
    track: Path | None = typer.Option(
        None, "--track", help="GPX or CSV track (time, latitude, longitude) that places decisions by their time."
    ),
    utc_offset: float = typer.Option(
        0.0, "--utc-offset", min=-14.0, max=14.0, help="Hours ahead of UTC of image times that state no offset."
    ),
    checks: Path | None = typer.Option(
        None, "--checks", help="CSV of what people saw: latitude, longitude, time, roadwork (1 or 0)."
    ),
    now: str | None = typer.Option(None, "--now", help="Time of the map, ISO; the last decision where left out."),
    passes: int = typer.Option(2, "--passes", min=1, help="Passes with roadwork that an event needs."),
    clears: int = typer.Option(2, "--clears", min=1, help="Passes without that clear a place."),
    ttl: float = typer.Option(14.0, "--ttl", min=0.01, help="Days after the last sighting until an event expires."),
    link: float = typer.Option(60.0, "--link", min=1.0, help="Metres between sightings of one place."),
    reach: float = typer.Option(40.0, "--reach", min=1.0, help="Metres within which a decision speaks of a place."),
    prevalence: float = typer.Option(
        0.2, "--prevalence", min=0.001, max=0.999, help="Share of roadwork among the images of the calibration."
    ),
    publisher: str = typer.Option("unknown", "--publisher", help="Publisher of the WZDx feed."),
    organisation: str = typer.Option("unknown", "--organisation", help="Owner of the images, for the WZDx feed."),
    model: str = typer.Option("workzone", "--model", help="Name and version of the detector, for the WZDx feed."),
    cc0: bool = typer.Option(False, "--cc0", help="Publish the feed under CC0, the licence WZDx knows."),
    tiles: str | None = typer.Option(
        None, "--tiles", help="Address of map tiles with {z}, {x} and {y}; none by default."
    ),
    attribution: str = typer.Option("", "--attribution", help="What the owner of the tiles asks to be shown."),
) -> None:
    """Join decisions of many drives into work-zone events.

    An event is published when two passes saw it or a person confirmed it; passes without roadwork clear it, and it
    expires when nobody saw it again.
    """
    from datetime import timedelta, timezone

    from rich.console import Console

    from workzone.cli.bundle import need_eval
    from workzone.cli.progress import TerminalProgress
    from workzone.errors import ConfigError
    from workzone.files import write_atomic, write_json
    from workzone.maps.checks import read_checks
    from workzone.maps.events import EventSettings, find_events
    from workzone.maps.feeds import to_geojson, to_wzdx
    from workzone.maps.page import render
    from workzone.maps.sightings import join, parse_time, read_sightings
    from workzone.maps.tracks import read_track

    need_eval("a map")
    settings = EventSettings(
        link=link, reach=reach, passes=passes, clears=clears, ttl=ttl, half_life=ttl, prevalence=prevalence
    )
    at = None if now is None else parse_time(now)
    if at is not None and at != at:
        raise ConfigError(f"{now!r} is no ISO time", where="--now", fix="say 2026-05-01T12:00:00Z")
    progress = TerminalProgress()
    known = None if track is None else read_track(track)
    with progress.bar("reading decisions") as advance:
        zone = timezone(timedelta(hours=utc_offset))
        found = join([read_sightings(path, track=known, zone=zone, progress=advance) for path in predictions])
    events = find_events(found, settings, now=at, checks=() if checks is None else read_checks(checks))
    geojson = to_geojson(events)
    time = float(found.time.max()) if at is None else at
    write_json(out / "events.geojson", geojson)
    feed = to_wzdx(events, publisher=publisher, organisation=organisation, now=time, model=model, licence=cc0)
    write_json(out / "wzdx.json", feed)
    page = render(geojson, title="Work zones", tiles=tiles, attribution=attribution)
    write_atomic(out / "map.html", page)
    counts = {s: sum(e.status == s for e in events) for s in ("active", "unconfirmed", "expired", "cleared")}
    console = Console(highlight=False)
    console.print(
        f"{len(found):,} decisions ({found.unplaced:,} without place or time left out), {len(events):,} places: "
        + ", ".join(f"{n:,} {s}" for s, n in counts.items()),
        soft_wrap=True,
    )
    if counts["unconfirmed"] and not counts["active"]:
        console.print("A place seen by one pass alone is not published: give more drives, or --checks.", soft_wrap=True)
    console.print(f"Feed with {len(feed['features']):,} events: {out / 'wzdx.json'}", soft_wrap=True, markup=False)
    console.print(f"Map: {out / 'map.html'}", soft_wrap=True, markup=False)
