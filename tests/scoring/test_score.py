"""``workzone score``: each image once, the same bytes however often it was killed and whoever did the work."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from helpers.command import command, environment, workzone
from workzone.bundle.starter import STARTER
from workzone.errors import ArtifactError, ConfigError, DataError, RunLockedError
from workzone.monitoring.void import mark_path, write_mark
from workzone.scoring import Launch, score_images
from workzone.scoring.listing import list_images
from workzone.scoring.plan import Options, Output, locked, make_plan, shard_files

GOOD, BAD = 9, 2
ALONE = Launch(workers=1)
pytestmark = pytest.mark.skipif(not (STARTER / "bundle.json").exists(), reason="built without the starter bundle")


def score(names: list[bytes], out: Path, bundle: Path = STARTER, **more: object) -> dict:
    more.setdefault("launch", ALONE)
    return score_images(names, bundle, out, max_pixels=120_000_000, shard_size=4, **more)  # type: ignore[arg-type]


def files(out: Path) -> dict[str, bytes]:
    """Everything but the figures of the last call and the lock."""
    skip = ("summary.json", ".lock")
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name not in skip}


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    score(list(list_images(str(pictures))), out)
    return out


def test_rows_are_those_of_predict(call: Callable[..., Any], pictures: Path, whole: Path, tmp_path: Path) -> None:
    table = tmp_path / "predicted.parquet"
    assert call("predict", pictures, "--bundle", STARTER, "--out", table).code == 1
    shards = shard_files(Output(whole))
    assert [pl.read_parquet(p).height for p in shards] == [4, 4, 3]
    found = pl.concat(pl.read_parquet(p) for p in shards)
    assert found.equals(pl.read_parquet(table))
    assert found.filter(pl.col("error").is_null()).height == GOOD
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["n"], summary["bad"], sum(summary["decisions"].values())) == (GOOD + BAD, BAD, GOOD)
    told = (whole / "bad.csv").read_text().splitlines()
    assert told == ["path,error", f"{pictures}/a/5x.jpg,empty", f"{pictures}/b/text.jpeg,not_an_image"]
    assert summary["last_call"]["images_per_second"] > 0


@pytest.mark.parametrize("budget", [None, 0.2])
def test_a_cascade_of_models_gives_the_rows_of_predict_also_after_a_kill(
    call: Callable[..., Any], pictures: Path, tiny_chain: Path, tmp_path: Path, budget: float | None
) -> None:
    # Drawn scenes beside the pictures, so that images stop at different stages.
    names = [*list_images(str(pictures)), *(os.fsencode(p) for p in sorted(tiny_chain.glob("bundle/golden/*.png")))]
    words = tmp_path / "names.txt"
    words.write_bytes(b"\n".join(names))
    bundle, table = tiny_chain / "bundle", tmp_path / "predicted.parquet"
    more = [] if budget is None else ["--budget", budget]
    listed = [os.fsdecode(name) for name in names]
    assert call("predict", *listed, "--bundle", bundle, "--out", table, *more).code == 1
    score_words = ("score", words, "-b", bundle, "-o", tmp_path / "out", "--shard-size", 4, "--workers", 1)
    assert call(*score_words, *more).code == 1
    shards = shard_files(Output(tmp_path / "out"))
    found = pl.concat(pl.read_parquet(p) for p in shards)
    assert found.equals(pl.read_parquet(table))
    good = found.filter(pl.col("error").is_null())
    assert good["stage"].n_unique() > 1
    assert good["cost"].is_between(0.0, 1.0, closed="right").all()
    before = files(tmp_path / "out")
    shards[1].unlink()
    summary = score(names, tmp_path / "out", bundle, budget=budget, launch=Launch(workers=1, threads=2))
    assert summary["last_call"]["images"] == 4
    assert files(tmp_path / "out") == before


def test_the_command_tells_of_bad_images_by_its_exit_code(pictures: Path, tmp_path: Path, whole: Path) -> None:
    call = ("score", pictures, "--bundle", STARTER, "--out", tmp_path / "out", "--shard-size", "4", "--workers", "2")
    done = workzone(*call)
    assert done.returncode == 1, done.stderr
    assert "11 images in 3 shards" in done.stderr
    assert "1 empty, 1 not_an_image" in done.stderr
    assert files(tmp_path / "out") == files(whole)
    again = workzone(*call)
    assert "0 scored now" in again.stderr


@pytest.mark.parametrize("form", ["csv", "parquet", "txt"])
def test_tables_and_lists_name_the_same_images(pictures: Path, form: str) -> None:
    names = sorted(p.relative_to(pictures) for p in pictures.glob("[ab]/*.jp*g"))
    assert [os.fsdecode(n) for n in list_images(str(pictures))] == [str(pictures / n) for n in names]
    frame = pl.DataFrame({"label": [0] * len(names), "File": [str(n) for n in names]})
    table = pictures / f"names.{form}"
    if form == "csv":
        frame.write_csv(table)
    elif form == "parquet":
        frame.write_parquet(table)
    else:
        table.write_text("\r\n".join(str(pictures / n) for n in names))
    found = list(list_images(str(table)))
    table.unlink()
    assert [os.fsdecode(n) for n in found] == [str(pictures / n) for n in names]


def test_inputs_that_are_none(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("label\n1\n")
    empty = tmp_path / "e.csv"
    empty.write_text("path,label\na.jpg,1\n,0\n")
    absent, other = tmp_path / "no", tmp_path / "x.pdf"
    other.write_bytes(b"%PDF")
    for path, words in ((table, "no column"), (empty, "names no image"), (absent, "no such"), (other, "no folder")):
        with pytest.raises(DataError, match=words):
            list(list_images(str(path)))
    with pytest.raises(DataError, match="no images"):
        score([], tmp_path / "out")


def test_a_missing_shard_is_made_again_with_the_same_bytes(pictures: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    one = shard_files(Output(out))[1]
    partial = one.with_name(f".{one.stem}-0123abcd.partial.parquet")
    one.rename(partial)
    summary = score(list(list_images(str(pictures))), out)
    assert summary["last_call"]["images"] == 4
    assert files(out) == files(whole)


def test_a_folder_is_for_one_set_of_images_bundle_and_options(
    pictures: Path, whole: Path, tmp_path: Path
) -> None:
    names = list(list_images(str(pictures)))
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    before = files(out)
    for wrong, words in (
        ({"names": names[1:]}, "others than"),
        ({"names": [names[1], names[0], *names[2:]]}, "others than"),
        ({"columns": {"source": "x"}}, "another columns"),
    ):
        with pytest.raises(ConfigError, match=words):
            score(**({"names": names, "out": out} | wrong))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="another max pixels"):
        score_images(names, STARTER, out, max_pixels=10, shard_size=4, launch=ALONE)
    assert files(out) == before
    # A call that was killed between the list and the plan.
    (out / "plan.json").unlink()
    shutil.rmtree(out / "shards")
    for name in ("bad.csv", "summary.json"):
        (out / name).unlink()
    score(names, out)
    assert files(out) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        score(names, other)


def test_a_list_may_grow_at_its_end(pictures: Path, whole: Path, tmp_path: Path) -> None:
    names = list(list_images(str(pictures)))
    out = tmp_path / "out"
    first = score(names[:6], out)
    assert (first["n"], first["shards"]) == (6, 2)
    grown = score(names, out)
    assert grown["last_call"]["images"] == len(names) - 4
    assert files(out) == files(whole)


def test_a_damaged_shard_is_named(pictures: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    one = shard_files(Output(out))[2]
    one.write_bytes(one.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="damaged") as caught:
        score(list(list_images(str(pictures))), out)
    assert one.name in str(caught.value)


def test_two_calls_at_once_are_refused(whole: Path) -> None:
    with locked(Output(whole)), pytest.raises(RunLockedError), locked(Output(whole)):
        pass


def test_a_void_certificate_is_honoured(pictures: Path, whole: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(STARTER, bundle)
    sha = json.loads((bundle / "bundle.json").read_text())["sha256"]
    write_mark(mark_path(bundle), sha, ["labels refuted it"], [{"n": 1}])
    names = list(list_images(str(pictures)))
    summary = score(names, tmp_path / "out", bundle)
    assert summary["decisions"] == {"roadwork": 0, "no_roadwork": 0, "abstain": GOOD}
    assert summary["void"] == ["labels refuted it"]
    shutil.copytree(whole, tmp_path / "begun")
    with pytest.raises(ConfigError, match="state of the certificate"):
        score(names, tmp_path / "begun", bundle)


def test_ray_that_is_not_there_is_named(call: Callable[..., Any], pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(name='ray')")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = workzone(
        "score", pictures, "-b", STARTER, "--out", tmp_path / "out", "--launcher", "ray", env={"PYTHONPATH": path}
    )
    assert done.returncode == 2
    assert "pip install 'workzone[ray]'" in done.stderr
    assert call("score", pictures, "--out", tmp_path / "o", "--launcher", "slurm").code == 2


def test_a_plan_of_a_million_names_needs_little_memory(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from workzone.scoring.plan import Options, Output, make_plan
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
names = (b"drives/%09d/front/left.jpg" % i for i in range(1_000_000))
shards = make_plan(names, Options("0" * 64, None, 1, None, (), 1024), Output(Path(sys.argv[1])))
print(len(shards), sum(s.count for s in shards), peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment(), capture_output=True, text=True, check=True
    )
    shards, names, kilobytes = map(int, done.stdout.split())
    assert (shards, names) == (977, 1_000_000)
    assert 0 < kilobytes < 20_000


def test_names_that_would_break_the_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="zero byte"):
        make_plan([b"a\0b.jpg"], Options("0" * 64, None, 1, None, (), 4), Output(tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("workers", "several"), [(1, False), (2, False), (2, True)])
def test_killed_at_many_moments(
    request: pytest.FixtureRequest, pictures: Path, tmp_path: Path, workers: int, several: bool
) -> None:
    """Kill -9 again and again until a call comes through: the files are those of a call that was left alone."""
    bundle = request.getfixturevalue("tiny_chain") / "bundle" if several else STARTER
    names = tmp_path / "names.txt"
    names.write_bytes(b"\n".join(sorted(list_images(str(pictures))) * 8))
    words = ["score", names, "--bundle", bundle, "--workers", workers, "--shard-size", 16, "--out"]
    assert workzone(*map(str, words), tmp_path / "alone", timeout=600).returncode == 1
    out, draw, kills = tmp_path / "out", random.Random(workers), 0
    while True:
        process = subprocess.Popen(
            command([*map(str, words), out]), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = len(shard_files(Output(out)))
        # The first call dies while it plans, each other one some time after it has got further.
        while process.poll() is None and not (out.exists() if kills == 0 else len(shard_files(Output(out))) > before):
            time.sleep(0.01)
        time.sleep(0.3 * draw.random())
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 1
    assert kills >= 3
    assert files(out) == files(tmp_path / "alone")
    rows = pl.concat(pl.read_parquet(p) for p in shard_files(Output(out)))
    assert rows["path"].to_list() == names.read_text().splitlines()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("several", [False, True])
def test_ray_makes_the_same_bytes(
    request: pytest.FixtureRequest,
    pictures: Path,
    whole: Path,
    tmp_path: Path,
    ray_environment: dict[str, str],
    several: bool,
) -> None:
    out, bundle = tmp_path / "out", STARTER
    if several:
        bundle, whole = request.getfixturevalue("tiny_chain") / "bundle", tmp_path / "whole"
        score(list(list_images(str(pictures))), whole, bundle)
    call = ("score", pictures, "--bundle", bundle, "--out", out, "--shard-size", "4", "--launcher", "ray")
    done = workzone(*call, "--workers", "2", env=ray_environment, timeout=600)
    assert done.returncode == 1, done.stderr
    assert "11 images in 3 shards" in done.stderr
    assert files(out) == files(whole)
    assert json.loads((out / "summary.json").read_text())["last_call"]["launcher"] == "ray"


def test_another_device_is_another_scoring(tmp_path: Path) -> None:
    options, output = Options("0" * 64, None, 1, None, (), 4), Output(tmp_path)
    first = make_plan([b"a"], options, output)
    assert "device" not in output.plan.read_text(), "as it was before there were others"
    with pytest.raises(ConfigError, match="another device"):
        make_plan([b"a"], replace(options, device="cuda"), output)
    assert make_plan([b"a"], options, output) == first
    other = Output(tmp_path / "other")
    assert make_plan([b"a"], replace(options, device="cuda"), other)[0].address != first[0].address
    with pytest.raises(ConfigError, match="another device"):
        make_plan([b"a"], options, other)
