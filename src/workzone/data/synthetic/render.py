"""From a scene to pixels: sky, ground, buildings, then everything that stands, back to front."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from . import distractors, roadwork
from .actors import paint_person, paint_vehicle
from .backdrop import paint_ground, paint_sky
from .camera import Pixels, draw_bonnet, finish, projection
from .canvas import SUPERSAMPLING, Canvas
from .domains import domain_profile
from .lighting import light_of
from .place import place_geometry
from .spec import SceneObject, SceneSpec
from .street import green_of, paint_facade, paint_lamp, paint_permanent_sign, paint_skyline, paint_tree
from .weather import add_glows, add_precipitation, add_reflections


def render_scene(spec: SceneSpec) -> Image.Image:
    """RGB image of a scene, (width, height) as in the spec; deterministic in the spec."""
    profile, place = domain_profile(spec.domain), place_geometry(spec.domain, spec.place)
    view = projection(profile, place, spec.view, spec.width, spec.height)
    sunset = any(item.kind == "sunset_sky" for item in spec.distractors)
    light = light_of(spec.hour, spec.minute, spec.weather, glow=sunset)
    shift = spec.view.z_offset
    lamps = [(lamp, lamp.z - shift) for lamp in place.lamps if lamp.z - shift > 3]
    image = paint_sky(view, light, place, spec.seed)
    pools = [(lamp.x - 1.8 * lamp.key, z) for lamp, z in lamps]
    ground, top = paint_ground(view, light, place, profile, shift, pools)
    canvas = Canvas(image, view, light)
    paint_skyline(canvas, place)
    image.paste(ground, (0, top))
    for facade in sorted(place.facades, key=lambda item: -item.z0):
        paint_facade(canvas, facade, shift, spec.seed)
    standing: list[tuple[float, Callable[[], None]]] = []
    standing += [(z, partial(paint_lamp, canvas, lamp, z)) for lamp, z in lamps]
    for tree in place.trees:
        x, z = tree.x, tree.z - shift
        # An autumn tree or another distractor takes the spot of the green tree.
        if z > 5 and not any(abs(x - item.x) < 2 and abs(z - item.depth) < 4 for item in spec.distractors):
            standing.append((z, partial(paint_tree, canvas, x, z, tree.height, tree.key, green_of(tree))))
    standing += [(item.depth, partial(_paint_traffic, canvas, item)) for item in spec.traffic]
    standing += [(item.depth, partial(distractors.PAINTERS[item.kind], canvas, item)) for item in spec.distractors]
    # Open ground lies flat: everything beside it is painted over it.
    standing += [
        (
            item.depth + (3.0 if item.kind == "excavation" else 0.0),
            partial(roadwork.PAINTERS[item.kind], canvas, item, profile),
        )
        for item in spec.objects
    ]
    for _, paint in sorted(standing, key=lambda entry: -entry[0]):
        paint()
    wide = {"fog": 2.2, "rain": 1.4, "snow": 1.3}.get(spec.weather, 1.0)
    pixels = np.asarray(image.reduce(SUPERSAMPLING), np.float32).copy()
    if spec.weather == "rain":
        add_reflections(pixels, view)
    add_glows(pixels, canvas.glows, wide)
    add_precipitation(pixels, light, spec.seed)
    pixels = _with_bonnet(pixels, spec, 0.25 + 0.75 * (1 - light.darkness))
    return finish(pixels, profile, spec.camera, spec.seed, light.darkness)


def _with_bonnet(pixels: Pixels, spec: SceneSpec, light: float) -> Pixels:
    profile = domain_profile(spec.domain)
    if profile.bonnet is None:
        return pixels
    layer = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw_bonnet(ImageDraw.Draw(layer), profile, spec.width, spec.height, light)
    return np.asarray(layer, np.float32).copy()


def _paint_traffic(canvas: Canvas, item: SceneObject) -> None:
    if item.kind == "pedestrian":
        paint_person(canvas, item)
    elif item.kind == "traffic_sign":
        paint_permanent_sign(canvas, item.x, item.depth, item.variant)
    else:
        paint_vehicle(canvas, item, item.kind)
