from __future__ import annotations

import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.clips import grey_step, number_of, write_clip
from workzone.errors import ImageError, MissingExtraError
from workzone.vision.containers import SENTENCES, VideoReason, sniff
from workzone.vision.video import SEEK_FROM, Video

av = pytest.importorskip("av", reason="PyAV is not installed")


def read(path: Path, **options: float) -> tuple[list[float], list[int], Video]:
    video = Video(path, **options)  # type: ignore[arg-type]
    frames = list(video)
    return [t for t, _ in frames], [number_of(image) for _, image in frames], video


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mov", "mpeg4"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4"),
     ("a.ts", "libx264"), ("a.mpg", "mpeg2video")],
)  # fmt: skip
def test_one_frame_a_second_from_every_container(tmp_path: Path, name: str, codec: str) -> None:
    rate = 25 if name == "a.mpg" else 10  # MPEG-2 knows a few rates only
    path = write_clip(tmp_path / name, 35 if rate == 10 else 52, rate=rate, codec=codec)
    times, numbers, video = read(path)
    assert video.problem is None
    assert times == pytest.approx([0, 1, 2, 3][: len(times)], abs=0.002)
    assert len(times) == (4 if rate == 10 else 3)
    assert all(abs(n - round(t * rate)) <= 1 for n, t in zip(numbers, times, strict=True))
    assert (video.info.width, video.info.height) == (96, 64)


@pytest.mark.parametrize("every", [0.1, 0.25, 0.5, 0.7, 2.0])
def test_each_moment_gives_the_first_frame_at_or_after_it(tmp_path: Path, every: float) -> None:
    path = write_clip(tmp_path / "a.mp4", 40, options={"crf": "5", "preset": "ultrafast"})
    times, numbers, video = read(path, every=every)
    wanted, target = [], 0.0
    for n in range(40):
        if n / 10 >= target - 1e-3:
            wanted.append(n)
            target = (int((n / 10 + 1e-3) / every) + 1) * every
    assert numbers == wanted
    assert times == pytest.approx([n / 10 for n in wanted])
    assert video.expected >= len(times) > 0


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.ts", 25, first=7.0)
    times, _, video = read(path)
    assert times == pytest.approx([0, 1, 2], abs=0.002)
    assert video.problem is None


@pytest.mark.parametrize("gop", [5, 30, 200], ids=["short", "long", "longer than the interval"])
def test_jumping_by_key_frames_gives_the_frames_that_reading_through_gives(tmp_path: Path, gop: int) -> None:
    path = write_clip(tmp_path / "a.mp4", 225, rate=5, gop=gop)
    times, numbers, video = read(path, every=SEEK_FROM)
    through_times, through_numbers, _ = read(path, every=1.0)
    rows = [through_times.index(t) for t in times]
    assert times == [0.0, 10.0, 20.0, 30.0, 40.0]
    assert numbers == [through_numbers[r] for r in rows]
    assert video.problem is None


@pytest.mark.parametrize("rotation", [90, 180, 270, -90])
def test_frames_are_turned_upright(tmp_path: Path, rotation: int) -> None:
    def marked(_: int) -> np.ndarray:
        picture = np.zeros((64, 96, 3), dtype=np.uint8)
        picture[:24, :24] = 255  # top left
        return picture

    path = write_clip(tmp_path / "a.mp4", 3, picture=marked, rotation=rotation)
    image = next(iter(Video(path)))[1]
    expected = Image.fromarray(marked(0)).rotate(rotation, expand=True)
    assert image.mode == "RGB"
    assert image.size == expected.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).mean() < 12


def test_a_file_cut_in_the_middle_gives_what_is_readable(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 96, 3), dtype=np.uint8)
    path = write_clip(
        tmp_path / "a.mp4", 60, picture=lambda n: noise[n], container={"movflags": "faststart"}
    )  # fmt: skip
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    times, _, video = read(path)
    assert times[:3] == [0.0, 1.0, 2.0]
    assert times[-1] < 5
    assert video.problem is not None
    assert video.problem.reason == "truncated"
    assert "of 6.0 s" in video.problem.what
    # Reading once more starts afresh.
    assert [t for t, _ in video] == times


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts"])
def test_a_cut_file_of_another_kind_ends_without_an_exception(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 96, 3), dtype=np.uint8)
    path = write_clip(tmp_path / name, 60, picture=lambda n: noise[n], codec="mpeg4")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    times, _, video = read(path)
    assert times[0] == 0
    assert times[-1] < 5
    if name != "a.ts":  # a transport stream states no length
        assert video.problem is not None


def test_damage_in_the_middle_is_left_out_and_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 64, 96, 3), dtype=np.uint8)
    path = write_clip(
        tmp_path / "a.mp4", 100, picture=lambda n: noise[n], gop=10, container={"movflags": "faststart"}
    )  # fmt: skip
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + len(whole) // 8] = os.urandom(len(whole) // 8)
    path.write_bytes(bytes(whole))
    times, _, video = read(path)
    assert video.problem is not None
    assert video.problem.reason == "corrupt"
    assert times[0] == 0
    assert times[-1] >= 8, "the part after the damage is read"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is no film", "not_a_video"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "not_a_video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not_a_video"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(40), "truncated"),
        (b"\x1aE\xdf\xa3" + bytes(range(256)), "corrupt"),
    ],
)
def test_content_that_is_no_video(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        Video(tmp_path / "a.mp4")
    assert caught.value.reason == reason
    assert str(tmp_path) in str(caught.value)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    given = ((tmp_path / "none.mp4", "missing"), (tmp_path, "not_a_file"), (Path("/dev/zero"), "not_a_file"))
    for path, reason in given:
        with pytest.raises(ImageError) as caught:
            Video(path)
        assert caught.value.reason == reason


def test_a_missing_table_of_contents_is_a_cut_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 30)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(ImageError) as caught:
        Video(path)
    assert caught.value.reason == "truncated"


def test_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(ImageError) as caught:
        Video(path)
    assert caught.value.reason == "no_pictures"


def test_the_size_is_refused_before_a_picture_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", 3)
    with pytest.raises(ImageError) as caught:
        Video(path, max_pixels=96 * 64 - 1)
    assert caught.value.reason == "too_large"
    assert "96 x 64" in caught.value.what
    assert [t for t, _ in Video(path, max_pixels=96 * 64)] == [0.0]


@pytest.mark.parametrize(("times", "reason"), [(2, "too_large"), (12, "corrupt")])
def test_pictures_that_grow_in_mid_stream_end_the_reading(tmp_path: Path, times: int, reason: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (150, 64, 96, 3), dtype=np.uint8)
    small = write_clip(tmp_path / "a.ts", 150, picture=lambda n: noise[n])
    large = write_clip(
        tmp_path / "b.ts", 5, picture=lambda n: np.repeat(np.repeat(noise[n], times, 0), times, 1), first=15.0
    )
    small.write_bytes(small.read_bytes() + large.read_bytes())
    video = Video(small, every=5.0, max_pixels=96 * 64)
    assert [image.size for _, image in video] == [(96, 64)] * 3
    assert video.problem is not None
    assert video.problem.reason == reason
    whole = Video(small, every=5.0)
    assert [image.size for _, image in whole] == [(96, 64)] * 3 + [(96 * times, 64 * times)]
    assert whole.problem is None


@pytest.mark.parametrize(("size", "reason"), [((4, 64), "too_small"), ((16, 816), "absurd_shape")])
def test_shapes_that_are_refused(tmp_path: Path, size: tuple[int, int], reason: str) -> None:
    path = write_clip(tmp_path / "a.avi", 2, picture=lambda n: np.zeros((*size, 3), dtype=np.uint8), codec="mpeg4")
    with pytest.raises(ImageError) as caught:
        Video(path)
    assert caught.value.reason == reason


def test_limits_end_the_reading_and_say_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 50)
    times, _, video = read(path, max_seconds=2.5)
    assert times == [0, 1, 2]
    assert video.problem is not None
    assert video.problem.reason == "too_long"
    times, _, video = read(path, max_frames=2)
    assert times == [0, 1]
    assert video.problem is not None
    assert video.problem.reason == "too_many_frames"
    assert video.expected == 2
    times, _, video = read(path, max_frames=5)
    assert (len(times), video.problem) == (5, None)
    for wrong in ({"every": 0.0}, {"every": float("nan")}, {"max_frames": 0}):
        with pytest.raises(ValueError, match="positive"):
            Video(path, **wrong)


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 200, picture=lambda n: np.repeat(np.repeat(grey_step(n), 2, 0), 2, 1))
    one = 2 * 96 * 2 * 64 * 3

    def peak(frames: int) -> int:
        video = Video(path, every=0.1, max_frames=frames)
        tracemalloc.start()
        for _ in video:
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(5)
    assert peak(190) < peak(30) + 8 * one


def test_the_open_file_is_closed_when_a_reader_stops_early(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 30)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        frames = iter(Video(path))
        next(frames)
        frames.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1  # noqa: PTH208


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'workzone\[video\]'"):
        Video(path)


def test_every_reason_has_its_sentence() -> None:
    assert set(SENTENCES) == set(VideoReason)


def test_other_first_bytes_are_no_container() -> None:
    assert sniff(b"\x47" + bytes(187)) is None
    assert sniff((b"\x47" + bytes(187)) * 5) == "mpegts"
    assert sniff(b"RIFF\x00\x00\x00\x00WAVE") is None
