"""Camera and city profiles: everything that differs between domains and says nothing about roadwork."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Domain:
    """One city with its fleet of cameras.

    `kerb` is +1 where traffic keeps right and -1 where it keeps left; `focal` is in units of image width;
    `tint` multiplies the channels; `delineators` are the kinds that close a lane here.
    """

    name: str
    kerb: int
    focal: float
    camera_height: float
    tint: Colour
    contrast: float
    noise: float
    vignette: float
    jpeg_quality: int
    bonnet: Colour | None
    sign_style: str
    delineators: tuple[str, ...]
    centre_line: Colour
    asphalt: float
    facades: tuple[Colour, ...]
    place_kinds: tuple[str, ...]
    latitude: float
    longitude: float


DOMAINS: dict[str, Domain] = {
    "lyra": Domain(
        "lyra",
        1,
        0.86,
        1.35,
        (1.03, 1.0, 0.95),
        1.05,
        2.5,
        0.25,
        82,
        (42, 46, 54),
        "diamond",
        ("cone", "drum"),
        (222, 178, 60),
        88,
        ((150, 92, 74), (176, 160, 140), (128, 122, 118), (188, 176, 150), (112, 78, 66)),
        ("downtown", "suburb", "arterial"),
        40.44,
        -79.99,
    ),
    "cetus": Domain(
        "cetus",
        -1,
        0.95,
        1.55,
        (0.96, 1.0, 1.05),
        0.95,
        4.0,
        0.12,
        74,
        None,
        "triangle",
        ("cone", "panel"),
        (228, 228, 224),
        104,
        ((198, 186, 164), (212, 202, 186), (166, 120, 100), (184, 188, 190), (222, 214, 190)),
        ("downtown", "suburb", "downtown"),
        53.48,
        -2.24,
    ),
    "draco": Domain(
        "draco",
        1,
        0.74,
        1.9,
        (0.98, 1.03, 0.97),
        1.12,
        5.5,
        0.4,
        62,
        (178, 178, 174),
        "diamond",
        ("cone", "water_barrier"),
        (232, 228, 214),
        78,
        ((168, 172, 176), (120, 134, 148), (200, 192, 178), (146, 140, 150), (92, 104, 118)),
        ("downtown", "arterial", "downtown"),
        35.17,
        136.9,
    ),
    "vela": Domain(
        "vela",
        1,
        0.8,
        1.25,
        (1.06, 1.0, 0.9),
        0.9,
        3.0,
        0.18,
        78,
        (120, 34, 36),
        "triangle",
        ("drum", "panel"),
        (230, 226, 216),
        122,
        ((222, 196, 150), (206, 170, 124), (232, 222, 204), (190, 150, 118), (214, 204, 184)),
        ("suburb", "arterial", "downtown"),
        37.39,
        -5.99,
    ),
}


def domain_profile(name: str) -> Domain:
    """Profile of a domain.

    Raises:
        ValueError: the name is not one of `DOMAINS`.
    """
    if name not in DOMAINS:
        raise ValueError(f"unknown synthetic domain {name!r}; known: {', '.join(DOMAINS)}")
    return DOMAINS[name]
