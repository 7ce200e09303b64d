from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workzone.errors import ImageError
from workzone.vision.decode import BACKGROUND, decode
from workzone.vision.formats import HAS_AVIF
from workzone.vision.reasons import SENTENCES, Reason


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """A smooth picture without any symmetry, so that each turn of it differs."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return Image.fromarray(np.stack([red, green, (red + 2 * green) / 3], axis=-1).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int, body: bytes = zlib.compress(bytes(1000))) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def reason_of(source: Path | bytes | Image.Image, **limits: int) -> Reason:
    with pytest.raises(ImageError) as caught:
        decode(source, **limits)
    error = caught.value
    assert isinstance(error.reason, Reason)
    assert SENTENCES[error.reason][0] in error.what
    assert error.where
    assert error.fix
    return error.reason


def distance(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).mean())


LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "TIFF-deflate": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"lossless": True, "exact": True},
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_are_exact(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(encode(picture(), name.split("-")[0], **LOSSLESS[name]))
    assert decode(path).tobytes() == picture().tobytes() == decode(path.read_bytes()).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP", "MPO", pytest.param("AVIF", marks=pytest.mark.skipif(
    not HAS_AVIF, reason="this Pillow has no AVIF"))])  # fmt: skip
def test_lossy_formats_are_near(kind: str) -> None:
    extra = {"save_all": True, "append_images": [Image.new("RGB", (96, 64), "blue")]} if kind == "MPO" else {}
    result = decode(encode(picture(), kind, **extra))
    assert result.mode == "RGB"
    assert distance(result, picture()) < 6


def test_every_reason_has_its_sentence() -> None:
    assert set(SENTENCES) == set(Reason)


def test_bad_paths(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "nothing.jpg") == "missing"
    assert reason_of(tmp_path) == "not_a_file"
    (tmp_path / "file").write_bytes(b"x")
    assert reason_of(tmp_path / "file" / "below.jpg") == "missing"
    os.mkfifo(tmp_path / "pipe")
    assert reason_of(tmp_path / "pipe") == "not_a_file"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert reason_of(tmp_path / "loop") == "unreadable"
    with pytest.raises(TypeError, match="Path"):
        decode(str(tmp_path))  # type: ignore[arg-type]


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "closed.png"
    path.write_bytes(encode(picture(), "PNG"))

    def refuse(*_args: object, **_named: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may open anything, so chmod would not do

    monkeypatch.setattr(Path, "open", refuse)
    assert reason_of(path) == "unreadable"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is no picture at all\n" * 20, "not_an_image"),
        (b"BMW makes cars, this is a text that starts like a bitmap", "not_an_image"),
        (b"<!doctype html><html></html>", "not_an_image"),
        (b"\xff\xd8", "not_an_image"),
        (b"%PDF-1.7 rest", "unsupported_format"),
        (b"8BPS rest of it", "unsupported_format"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "unsupported_format"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00mp41", "unsupported_format"),
        (png_header(32, 32, b"not deflate at all" * 9), "corrupt"),
    ],
)
def test_bad_content(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "street.jpg"
    path.write_bytes(content)
    assert reason_of(path) == reason
    assert reason_of(content) == reason


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "TIFF-deflate", "GIF", "MPO", "JPEG-progressive"]
)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated(kind: str, kept: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 240, 3), dtype=np.uint8))
    options = {"TIFF-deflate": {"compression": "tiff_adobe_deflate"}, "JPEG-progressive": {"progressive": True}}
    data = encode(noise, kind.split("-")[0], **options.get(kind, {}))
    assert reason_of(data[: int(len(data) * kept)]) == "truncated"


@pytest.mark.skipif(not HAS_AVIF, reason="this Pillow has no AVIF")
def test_cut_avif_is_refused() -> None:
    data = encode(picture(), "AVIF")
    assert reason_of(data[: len(data) // 2]) in {"truncated", "corrupt"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_damaged_bytes_never_raise_anything_else(kind: str) -> None:
    rng = np.random.default_rng(1)
    data = np.frombuffer(encode(picture(), kind), dtype=np.uint8)
    reasons = []
    for _ in range(60):
        hurt = data.copy()
        places = rng.integers(12, min(len(hurt), 400), 8)
        hurt[places] = rng.integers(0, 256, 8)
        try:
            assert decode(hurt.tobytes()).mode == "RGB"
        except ImageError as error:
            reasons.append(error.reason)
    assert set(reasons) <= set(Reason)
    # Damage in GIF, BMP and TIFF mostly hits colours, which nothing can notice.
    assert reasons or kind in {"GIF", "BMP", "TIFF"}


def test_bombs_are_refused_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(20_000, 20_000))
    start = time.perf_counter()
    assert reason_of(path) == "too_large"
    assert time.perf_counter() - start < 0.1
    gif = bytearray(encode(picture(), "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    assert reason_of(bytes(gif)) == "too_large"
    webp = b"RIFF" + struct.pack("<I", 200) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xfe\x3f\x00" * 2
    assert reason_of(webp + bytes(178)) == "too_large"
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 100_000, 100_000, 8, 2, 0, 0, 0)
    assert reason_of(png + struct.pack(">I", zlib.crc32(png[12:]))) == "too_large"
    assert reason_of(png) == "too_large"
    small = png.replace(struct.pack(">I", 100_000), struct.pack(">I", 100))
    assert reason_of(small + struct.pack(">I", zlib.crc32(small[12:]))) == "truncated"


def test_limits_are_the_callers_own(tmp_path: Path) -> None:
    data = encode(picture(), "PNG")
    path = tmp_path / "image.png"
    path.write_bytes(data)
    assert reason_of(data, max_pixels=96 * 64 - 1) == "too_large"
    assert reason_of(picture(), max_pixels=96 * 64 - 1) == "too_large"
    assert decode(data, max_pixels=96 * 64).size == (96, 64)
    for source in (data, path):
        assert reason_of(source, max_bytes=len(data) - 1) == "too_large"
        assert decode(source, max_bytes=len(data)).size == (96, 64)


@pytest.mark.filterwarnings("error")
def test_no_warning_between_pillows_limit_and_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode(encode(picture(), "PNG")).size == (96, 64)


def test_shapes() -> None:
    assert reason_of(encode(Image.new("RGB", (1, 1)), "PNG")) == "too_small"
    assert reason_of(encode(Image.new("RGB", (7, 90)), "PNG")) == "too_small"
    assert reason_of(encode(Image.new("RGB", (8, 401)), "PNG")) == "absurd_shape"
    assert decode(encode(Image.new("RGB", (8, 400)), "PNG")).size == (8, 400)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_orientations_show_the_same_upright_picture(kind: str) -> None:
    upright = picture()
    turns = Image.Transpose
    stored = {1: None, 2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE,
              6: turns.ROTATE_90, 7: turns.TRANSVERSE, 8: turns.ROTATE_270}  # fmt: skip
    for orientation, turn in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(upright if turn is None else upright.transpose(turn), kind, exif=exif)
        result = decode(data)
        assert distance(result, upright) < 4, orientation
        again = decode(result)
        assert again.tobytes() == result.tobytes(), "a second reader must not turn it again"
        opened = Image.open(io.BytesIO(data))
        assert distance(decode(opened), upright) < 4


def test_damaged_exif_leaves_the_picture_as_stored() -> None:
    data = encode(picture(), "JPEG", exif=b"Exif\x00\x00XX\x00\x99 not a TIFF header")
    assert decode(data).tobytes() == decode(encode(picture(), "JPEG")).tobytes()


def test_cmyk_of_adobe_is_not_a_negative() -> None:
    data = encode(picture().convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert distance(decode(data), picture()) < 6
    assert distance(decode(encode(picture().convert("CMYK"), "TIFF")), picture()) < 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    result = np.asarray(decode(encode(Image.fromarray(values), kind)))
    expected = np.round(values / 257).astype(int)
    assert np.abs(result[..., 0].astype(int) - expected).max() <= 1
    assert (result[..., 0] == result[..., 2]).all()
    assert result.min() == 0
    assert result.max() == 255


def test_white_is_zero_16_bit_tiff() -> None:
    values = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    data = encode(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert np.asarray(decode(data))[0, 0, 0] == 255


def test_float_pixels_are_refused() -> None:
    assert reason_of(encode(Image.new("F", (32, 32), 0.5), "TIFF")) == "unsupported_format"
    assert reason_of(Image.new("F", (32, 32), 0.5)) == "unsupported_format"


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA"])
def test_modes_become_rgb(mode: str) -> None:
    image = picture().convert("P").convert("PA") if mode == "PA" else picture().convert(mode)
    result = decode(image if mode == "PA" else encode(image, "PNG"))
    assert result.mode == "RGB"
    expected = picture().convert("1" if mode == "1" else "L" if mode in ("L", "LA") else "RGB").convert("RGB")
    assert distance(result, expected) < (20 if mode in ("P", "PA") else 1)


def test_alpha_is_composited_on_mid_grey() -> None:
    clear = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    assert decode(encode(clear, "PNG")).getpixel((3, 3)) == BACKGROUND
    half = decode(encode(Image.new("RGBA", (20, 10), (255, 0, 0, 128)), "PNG")).getpixel((3, 3))
    assert half == pytest.approx((192, 64, 64), abs=1)
    palette = Image.new("P", (20, 10), 1)
    palette.putpalette([0, 0, 0, 0, 255, 0])
    palette.putpixel((5, 5), 0)
    result = decode(encode(palette, "PNG", transparency=0))
    assert result.getpixel((5, 5)) == BACKGROUND
    assert result.getpixel((1, 1)) == (0, 255, 0)
    keyed = decode(encode(Image.new("RGB", (20, 10), (9, 8, 7)), "PNG", transparency=(9, 8, 7)))
    assert keyed.getpixel((1, 1)) == BACKGROUND


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "lime")]
    extra = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **extra)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert decode(data).getpixel((20, 15)) == (255, 0, 0)


def test_reduced_decoding_keeps_the_needed_side() -> None:
    data = encode(picture(1600, 1200), "JPEG", quality=95)
    sizes = {side: decode(data, min_side=side).size for side in (100, 150, 151, 300, 600, 601, 5000)}
    assert sizes == {100: (200, 150), 150: (200, 150), 151: (400, 300), 300: (400, 300), 600: (800, 600),
                     601: (1600, 1200), 5000: (1600, 1200)}  # fmt: skip
    assert distance(decode(data, min_side=150), picture(200, 150)) < 3
    assert decode(data, min_side=150).tobytes() == decode(data, min_side=150).tobytes()
    assert decode(encode(picture(), "PNG"), min_side=10).size == (96, 64)


def test_reduced_decoding_of_a_turned_photo() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(picture(1600, 1200).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    assert decode(data, min_side=300).size == (400, 300)
    assert distance(decode(data, min_side=300), picture(400, 300)) < 3


def test_a_callers_picture_is_not_changed() -> None:
    original = picture()
    original.info["exif"] = b"kept"
    result = decode(original)
    result.putpixel((0, 0), (1, 2, 3))
    assert original.getpixel((0, 0)) == (0, 0, 0)
    assert original.info == {"exif": b"kept"}
    assert result.info == {}
    lazy = Image.open(io.BytesIO(encode(picture(), "PNG")[:200]))
    assert reason_of(lazy) == "truncated"
