"""Sampling: determinism, ground truth, and that nothing but the roadwork depends on the label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from workzone.data.synthetic import DOMAINS, SceneSpec, generate, render_scene, sample_scene
from workzone.data.synthetic.place import place_geometry
from workzone.data.synthetic.spec import Weather

NAMES = tuple(DOMAINS)


def specs(n: int, label: int = 1) -> list[SceneSpec]:
    return [sample_scene(seed, label=label, domain=NAMES[seed % 4], place=seed // 3) for seed in range(n)]


def orange_share(image: Image.Image) -> float:
    hue, saturation, value = np.moveaxis(np.asarray(image.convert("HSV"), np.int16), -1, 0)
    return float(((hue > 8) & (hue < 30) & (saturation > 140) & (value > 110)).mean())


def test_same_seed_gives_same_bytes_and_another_seed_does_not() -> None:
    spec = sample_scene(3, label=1, domain="lyra", place=2)
    again = sample_scene(3, label=1, domain="lyra", place=2)
    assert spec == again
    assert spec.digest() == again.digest()
    assert render_scene(spec).tobytes() == render_scene(again).tobytes()
    other = sample_scene(4, label=1, domain="lyra", place=2)
    assert other.digest() != spec.digest()
    assert render_scene(other).tobytes() != render_scene(spec).tobytes()


def test_label_changes_only_the_roadwork() -> None:
    for seed in range(60):
        domain = NAMES[seed % 4]
        positive = sample_scene(seed, label=1, domain=domain, place=seed)
        negative = sample_scene(seed, label=0, domain=domain, place=seed)
        assert positive.objects
        assert positive.evidence in ("strong", "weak")
        assert negative.objects == ()
        assert replace(positive, label=0, objects=(), evidence="") == negative


def test_pictures_of_both_labels_differ_inside_the_boxes_and_hardly_outside() -> None:
    for seed in (1, 7, 13, 21):
        positive = sample_scene(seed, label=1, domain=NAMES[seed % 4], place=seed)
        negative = sample_scene(seed, label=0, domain=NAMES[seed % 4], place=seed)
        a, b = (np.asarray(render_scene(s), np.int16) for s in (positive, negative))
        difference = np.abs(a - b).max(axis=2)
        inside = np.zeros(difference.shape, bool)
        for item in positive.objects:
            x0, y0, x1, y1 = item.box
            # Shadows, lamp glow and JPEG blocks reach a little over the edge.
            inside[max(0, int(y0) - 16) : int(y1) + 17, max(0, int(x0) - 16) : int(x1) + 17] = True
        assert difference[inside].max() > 40
        assert (difference[~inside] > 40).mean() < 0.002


def test_boxes_lie_in_the_image_and_are_visible() -> None:
    for spec in specs(150):
        for item in (*spec.objects, *spec.distractors, *spec.traffic):
            x0, y0, x1, y1 = item.box
            assert 0 <= x0 < x1 <= spec.width
            assert 0 <= y0 < y1 <= spec.height
            assert item.kind == "sunset_sky" or min(x1 - x0, y1 - y0) >= 3


def test_boxes_of_roadwork_hold_its_colours() -> None:
    marked = {"cone", "drum", "water_barrier", "panel", "barricade", "work_sign"}
    hits = total = 0
    for spec in specs(90):
        if not 9 <= spec.hour <= 16 or spec.weather not in ("clear", "overcast"):
            continue
        pixels = np.asarray(render_scene(spec), np.int16)
        for item in spec.objects:
            if item.kind in marked:
                x0, y0, x1, y1 = (round(v) for v in item.box)
                red, green, blue = np.moveaxis(pixels[y0:y1, x0:x1], -1, 0)
                warm = (red > 110) & (red - blue > 60) & (red - green > 25)
                pale = (red > 150) & (np.abs(red - blue) < 60)
                total += 1
                hits += bool((warm.mean() > 0.04) or (item.kind == "water_barrier" and pale.mean() > 0.2))
    assert total > 60
    assert hits / total > 0.93


def test_nearer_things_are_larger() -> None:
    cones = [item for spec in specs(200) for item in spec.objects if item.kind == "cone" and item.box[0] > 1]
    depth = np.array([item.depth for item in cones])
    height = np.array([item.box[3] - item.box[1] for item in cones])
    assert len(cones) > 50
    assert np.corrcoef(depth, 1 / height)[0, 1] > 0.9


def test_shares_of_weak_evidence_and_hard_negatives() -> None:
    positives, negatives = specs(300), specs(300, label=0)
    assert 0.25 <= np.mean([s.evidence == "weak" for s in positives]) <= 0.36
    assert 0.38 <= np.mean([s.hard_negative for s in negatives]) <= 0.5
    assert {s.weather for s in positives} == {"clear", "overcast", "rain", "fog", "snow"}
    weak = np.mean([len(s.objects) for s in positives if s.evidence == "weak"])
    strong = np.mean([len(s.objects) for s in positives if s.evidence == "strong"])
    assert strong > 3 * weak


@pytest.mark.stat
def test_nothing_but_the_roadwork_predicts_the_label() -> None:
    images = list(generate(200, seed=5, size=(160, 90)))
    label = np.array([i.label for i in images], float)
    means = np.array([np.asarray(i.image, float).mean(axis=(0, 1)) for i in images])
    night = np.array([i.captured_hour >= 20 or i.captured_hour < 6 for i in images], float)
    columns = {
        "orange": np.array([orange_share(i.image) for i in images]),
        "red": means[:, 0],
        "green": means[:, 1],
        "blue": means[:, 2],
        "hour": np.array([i.captured_hour for i in images], float),
        "night": night,
        "clear": np.array([i.weather == "clear" for i in images], float),
        "latitude": np.array([i.latitude for i in images]),
    }
    # Three standard errors of a correlation of independent columns at n = 200.
    for name, column in columns.items():
        assert abs(np.corrcoef(column, label)[0, 1]) < 3 / np.sqrt(200), name
    for domain in DOMAINS:
        labels = label[[i.source == domain for i in images]]
        assert len(labels) == pytest.approx(50, abs=2)
        assert labels.mean() == pytest.approx(0.5, abs=0.06)
    assert {i.image.size for i in images} == {(160, 90)}


def test_images_of_one_place_share_geometry_and_both_labels_occur() -> None:
    assert place_geometry("lyra", 4) == place_geometry("lyra", 4)
    assert place_geometry("lyra", 4) != place_geometry("lyra", 5)
    assert place_geometry("lyra", 4) != place_geometry("vela", 4)
    groups: dict[str, list[int]] = {}
    spots: dict[str, list[float]] = {}
    for image in generate(72, seed=2, size=(64, 48)):
        groups.setdefault(image.group, []).append(image.label)
        spots.setdefault(image.group, []).append(image.latitude)
    assert {len(labels) for labels in groups.values()} == {3}
    assert any(len(set(labels)) == 2 for labels in groups.values())
    assert all(max(v) - min(v) < 2e-4 for v in spots.values())


def test_night_is_darker_than_day_and_snow_is_brighter_than_rain() -> None:
    base = sample_scene(11, label=0, domain="cetus", place=1)

    def brightness(hour: int, weather: Weather) -> float:
        return float(np.asarray(render_scene(replace(base, hour=hour, weather=weather)), np.float64).mean())

    assert brightness(1, "clear") < 0.6 * brightness(12, "clear")
    assert brightness(12, "rain") < brightness(12, "snow")


def test_fog_flattens_the_distance() -> None:
    base = sample_scene(11, label=0, domain="cetus", place=1)
    band = slice(90, 120)
    scenes = (replace(base, hour=12, weather="clear"), replace(base, hour=12, weather="fog"))
    clear, fog = (np.asarray(render_scene(scene), np.float64) for scene in scenes)
    assert fog[band, 150:300].std() < 0.6 * clear[band, 150:300].std()


@pytest.mark.parametrize(
    ("label", "domain", "size"), [(2, "lyra", (448, 252)), (1, "nowhere", (448, 252)), (1, "lyra", (10, 10))]
)
def test_wrong_arguments_are_refused(label: int, domain: str, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"label|domain|pixels"):
        sample_scene(1, label=label, domain=domain, place=0, size=size)


def test_a_square_or_large_image_renders() -> None:
    for size in ((224, 224), (1280, 900)):
        spec = sample_scene(5, label=1, domain="draco", place=3, size=size)
        assert render_scene(spec).size == size
