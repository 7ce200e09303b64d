"""Streams and folders of synthetic street images with ground truth."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from PIL import Image

from ...files import write_atomic
from .domains import DOMAINS, domain_profile
from .render import render_scene
from .scene import sample_scene
from .spec import Evidence, SceneSpec, stream

DEFAULT_SIZE = (448, 252)
COLUMNS = (
    "id", "file", "label", "source", "group", "captured_at", "hour", "weather", "camera_id", "latitude", "longitude",
    "width", "height", "evidence", "hard_negative",
)  # fmt: skip
_QUALITY = 90


@dataclass(slots=True)
class SyntheticImage:
    """One image with its ground truth; `boxes` are roadwork as (kind, x0, y0, x1, y1) in shares of width and height."""

    id: str
    image: Image.Image
    label: int
    source: str
    group: str
    captured_hour: int
    weather: str
    camera_id: str
    latitude: float
    longitude: float
    captured_at: datetime
    evidence: Evidence
    hard_negative: bool
    boxes: list[tuple[str, float, float, float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known of an image before it is drawn."""

    id: str
    spec: SceneSpec
    captured_at: datetime
    latitude: float
    longitude: float

    @property
    def group(self) -> str:
        return f"{self.spec.domain}-place{self.spec.place:04d}"

    @property
    def camera_id(self) -> str:
        return f"{self.spec.domain}-cam{self.spec.camera + 1}"


def _label(seed: int, domain: str, order: int, prevalence: float) -> int:
    """Label of the `order`-th image of a domain: shares are kept within every block of six images."""
    block, rank = divmod(order, 6)
    rng = stream(seed, f"labels/{domain}", block)
    phase = float(stream(seed, f"label-phase/{domain}").random())
    wanted = int((block + 1) * 6 * prevalence + phase) - int(block * 6 * prevalence + phase)
    return int(rng.permutation(6)[rank] < wanted)


def _plan(
    index: int, seed: int, prevalence: float, per_place: int, size: tuple[int, int], domains: Sequence[str]
) -> _Plan:
    slot, within = divmod(index, per_place)
    turn, which = divmod(slot, len(domains))
    domain = domains[which]
    profile = domain_profile(domain)
    # Neighbouring seeds start 7919 places apart, so that sets of different seeds do not share geometry by chance.
    place = (seed * 7919 + turn) % 1_000_003
    label = _label(seed, domain, turn * per_place + within, prevalence)
    scene_seed = int(stream(seed, "scene", index).integers(1 << 62))
    spec = sample_scene(scene_seed, label=label, domain=domain, place=place, size=size)
    rng = stream(scene_seed, "calendar")
    month = int(rng.choice((12, 1, 2))) if spec.weather == "snow" else int(rng.integers(3, 12))
    moment = datetime(2024, month, int(rng.integers(1, 29)), spec.hour, spec.minute, int(rng.integers(60)))
    spot = stream(place, f"position/{domain}")
    latitude = profile.latitude + float(spot.uniform(-0.08, 0.08)) + float(rng.uniform(-4e-5, 4e-5))
    longitude = profile.longitude + float(spot.uniform(-0.1, 0.1)) + float(rng.uniform(-4e-5, 4e-5))
    return _Plan(f"syn{seed}-{index:06d}", spec, moment, round(latitude, 6), round(longitude, 6))


def _plans(n: int, seed: int, prevalence: float, per_place: int, size: tuple[int, int],
           domains: Sequence[str] | None) -> Iterator[_Plan]:  # fmt: skip
    if n < 0 or per_place < 1 or not 0.0 <= prevalence <= 1.0:
        raise ValueError(
            f"need n >= 0, images_per_place >= 1, 0 <= prevalence <= 1; got {n}, {per_place}, {prevalence}"
        )
    names = tuple(DOMAINS) if domains is None else tuple(domains)
    if not names:
        raise ValueError("need at least one domain")
    return (_plan(index, seed, prevalence, per_place, size, names) for index in range(n))


def generate(
    n: int,
    *,
    seed: int,
    prevalence: float = 0.5,
    images_per_place: int = 3,
    size: tuple[int, int] = DEFAULT_SIZE,
    domains: Sequence[str] | None = None,
) -> Iterator[SyntheticImage]:
    """Yield `n` images; the first images of a longer stream with the same arguments are the same.

    Raises:
        ValueError: a count, the prevalence or the size is out of range, or a domain is unknown.
    """
    for plan in _plans(n, seed, prevalence, images_per_place, size, domains):
        spec = plan.spec
        w, h = spec.width, spec.height
        boxes = [(o.kind, o.box[0] / w, o.box[1] / h, o.box[2] / w, o.box[3] / h) for o in spec.objects]
        yield SyntheticImage(
            plan.id, render_scene(spec), spec.label, spec.domain, plan.group, spec.hour, spec.weather, plan.camera_id,
            plan.latitude, plan.longitude, plan.captured_at, spec.evidence, spec.hard_negative, boxes,
        )  # fmt: skip


def _is_current(path: Path, digest: bytes) -> bool:
    """Whether the file holds the image of the spec with this digest (kept in the JPEG comment)."""
    if not path.is_file():
        return False
    try:
        with Image.open(path) as image:
            return image.info.get("comment") == digest
    except OSError:
        return False


def write_dataset(folder: Path, n: int, *, seed: int, prevalence: float = 0.5, images_per_place: int = 3,
                  size: tuple[int, int] = DEFAULT_SIZE, domains: Sequence[str] | None = None,
                  progress: Callable[[int, int], None] | None = None) -> Path:  # fmt: skip
    """Write `images/*.jpg` and `metadata.csv` into `folder`; returns the path of the table.

    A killed call resumes: images of the same scene are kept, and the table is written last. `progress` receives
    (images done, images in all).

    Raises:
        ValueError: as for `generate`.
    """
    plans = list(_plans(n, seed, prevalence, images_per_place, size, domains))
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    table = folder / "metadata.csv"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for plan in plans:
        spec = plan.spec
        writer.writerow(
            [
                plan.id,
                f"images/{plan.id}.jpg",
                spec.label,
                spec.domain,
                plan.group,
                plan.captured_at.isoformat(),
                spec.hour,
                spec.weather,
                plan.camera_id,
                f"{plan.latitude:.6f}",
                f"{plan.longitude:.6f}",
                spec.width,
                spec.height,
                spec.evidence,
                int(spec.hard_negative),
            ]
        )
    content = text.getvalue().encode()
    if table.is_file() and table.read_bytes() != content:
        # A table of another set must not describe the images while they are being replaced.
        table.unlink()
    for done, plan in enumerate(plans, start=1):
        path = images / f"{plan.id}.jpg"
        digest = hashlib.sha256(f"{plan.spec.digest()}:{_QUALITY}".encode()).hexdigest().encode()
        if not _is_current(path, digest):
            buffer = io.BytesIO()
            render_scene(plan.spec).save(buffer, "JPEG", quality=_QUALITY, comment=digest)
            write_atomic(path, buffer.getvalue())
        if progress is not None:
            progress(done, n)
    write_atomic(table, content)
    return table
