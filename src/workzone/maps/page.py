"""The map as one page that works from a file and without a network; tiles only where an address is given."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from workzone.errors import ConfigError


def render(geojson: Mapping[str, Any], *, title: str, tiles: str | None = None, attribution: str = "") -> str:
    """HTML page with the events of ``geojson``.

    Args:
        geojson: as ``to_geojson`` makes it.
        title: of the page.
        tiles: address of raster tiles with {z}, {x} and {y}; None for a map without a background.
        attribution: what the owner of the tiles asks to be shown.

    Raises:
        ConfigError: an address that is none.
    """
    if tiles is not None:
        parts = urlsplit(tiles)
        if parts.scheme not in ("http", "https") or not all(k in tiles for k in ("{z}", "{x}", "{y}")):
            raise ConfigError(
                f"{tiles!r} is no address of tiles", where="--tiles", fix="say https://HOST/{z}/{x}/{y}.png"
            )
    origin = "" if tiles is None else f"{urlsplit(tiles).scheme}://{urlsplit(tiles).netloc.replace('{s}', '*')}"
    policy = (
        f"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: {origin}".strip()
    )
    data = {"events": geojson, "tiles": tiles, "attribution": html.escape(attribution)}
    # A closing tag inside a string would end the script.
    embedded = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    page = _asset("map.html")
    for name, text in (
        ("%TITLE%", html.escape(title)),
        ("%POLICY%", policy),
        ("%LEAFLET_CSS%", _asset("leaflet.css")),
        ("%CSS%", _asset("map.css")),
        ("%LEAFLET_JS%", _asset("leaflet.js")),
        ("%JS%", _asset("map.js")),
        ("%DATA%", embedded),
    ):
        page = page.replace(name, text)
    return page


def _asset(name: str) -> str:
    return (files("workzone.maps") / "assets" / name).read_text(encoding="utf-8")
