from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from workzone.errors import DataError
from workzone.metrics import clopper_pearson
from workzone.registry.ab import fisher, judge, labels_needed, sequential
from workzone.registry.shadow import compare
from workzone.registry.split import assign

NAMES = ["no_roadwork", "roadwork"]


def table(path: Path, ids: Sequence[str], decisions: Sequence[str], p: Sequence[float] | None = None) -> Path:
    chances = (
        p if p is not None else [0.9 if d == "roadwork" else 0.1 if d == "no_roadwork" else 0.5 for d in decisions]
    )
    rows = zip(ids, decisions, chances, strict=True)
    path.write_text(
        "".join(
            json.dumps({"id": i, "decision": d, "probability": x, "source": f"van{int(i) % 2}"}) + "\n"
            for i, d, x in rows
        )
    )
    return path


def labels(path: Path, ids: Sequence[str], y: Sequence[int]) -> Path:
    path.write_text("".join(json.dumps({"id": i, "label": int(v)}) + "\n" for i, v in zip(ids, y, strict=True)))
    return path


def ids(n: int, start: int = 0) -> list[str]:
    return [str(i) for i in range(start, start + n)]


def test_shadow_counts_where_decisions_differ(tmp_path: Path) -> None:
    first = ["roadwork"] * 40 + ["no_roadwork"] * 40 + ["abstain"] * 20
    second = list(first)
    for i in (1, 3, 5, 41):  # all odd: of van1
        second[i] = "abstain" if i < 5 else {"roadwork": "no_roadwork", "no_roadwork": "roadwork"}[first[i]]
    a = table(tmp_path / "a.jsonl", ids(100), first)
    b = table(tmp_path / "b.jsonl", ids(101), [*second, "abstain"])
    found = compare(a, b, ["source"])
    assert (found.n, found.only_a, found.only_b) == (100, 0, 1)
    assert (found.decisions.events, found.opposite.events) == (4, 2)
    assert (found.decisions.low, found.decisions.high) == pytest.approx(clopper_pearson(4, 100))
    assert found.table["roadwork / abstain"] == 2
    assert sum(found.table.values()) == 100
    vans = {s.value: s.rate for s in found.slices if s.column == "source"}
    assert (vans["van1"].events, vans["van0"].events) == (4, 0)
    assert vans["van1"].level > 0.95, "corrected for the number of slices"
    assert {row["id"] for row in found.largest} == {"1", "3", "5", "41"}
    assert found.largest[0]["id"] in {"5", "41"}
    assert found.stop(0.005)
    assert not found.stop(0.04)


def test_shadow_needs_shared_images(tmp_path: Path) -> None:
    a = table(tmp_path / "a.jsonl", ids(3), ["roadwork"] * 3)
    with pytest.raises(DataError, match="share no image"):
        compare(a, table(tmp_path / "b.jsonl", ids(3, 10), ["roadwork"] * 3))
    with pytest.raises(DataError, match="lacks the column"):
        compare(a, a, ["weather"])


def test_the_split_is_stable_and_grows() -> None:
    few = {i for i in ids(4000) if assign(i, 0.1, "x") == "challenger"}
    more = {i for i in ids(4000) if assign(i, 0.3, "x") == "challenger"}
    assert few < more
    low, high = clopper_pearson(len(few), 4000, 0.9999)
    assert low < 0.1 < high
    assert {assign(i, 0.0) for i in ids(50)} == {"champion"}
    assert {assign(i, 1.0) for i in ids(50)} == {"challenger"}
    other = {i for i in ids(4000) if assign(i, 0.1, "y") == "challenger"}
    assert len(few & other) < len(few) / 3, "another experiment splits otherwise"
    arms = "".join("B" if assign(f"request-{i}", 0.5, "x") == "challenger" else "A" for i in range(12))
    assert arms == "AABBBBABABAB", "must never change between versions"


def errs(y: np.ndarray, rate: float, rng: np.random.Generator) -> list[str]:
    return [NAMES[int(v)] for v in np.where(rng.random(len(y)) < rate, 1 - y, y)]


@pytest.mark.parametrize(
    ("rates", "verdict"), [((0.05, 0.25), "challenger worse"), ((0.25, 0.05), "challenger better")]
)
@pytest.mark.parametrize("paired", [True, False])
def test_ab_sees_a_clear_difference(tmp_path: Path, rates: tuple[float, float], verdict: str, paired: bool) -> None:
    rng = np.random.default_rng(1)
    n = 400
    ya, yb = rng.integers(0, 2, n), rng.integers(0, 2, n)
    yb = ya if paired else yb
    a = table(tmp_path / "a.jsonl", ids(n), errs(ya, rates[0], rng))
    b = table(tmp_path / "b.jsonl", ids(n, 0 if paired else n), errs(yb, rates[1], rng))
    given = labels(tmp_path / "y.jsonl", ids(n) if paired else ids(2 * n), ya if paired else [*ya, *yb])
    found = judge(a, b, given)
    assert found.mode == ("paired" if paired else "split")
    assert found.verdict == verdict
    assert found.p < 1e-4
    assert found.stopped_after is not None
    assert found.unused == 0
    assert found.champion.n == n
    assert found.champion.value == pytest.approx(rates[0], abs=0.06)


def test_ab_goes_on_where_nothing_differs(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 300)
    a = table(tmp_path / "a.jsonl", ids(300), errs(y, 0.1, rng))
    found = judge(a, a, labels(tmp_path / "y.jsonl", ids(300), y))
    assert (found.verdict, found.discordant, found.p) == ("go on", 0, 1.0)


def test_ab_counts_what_was_asked_for(tmp_path: Path) -> None:
    y = [1, 1, 0, 0, 1]
    a = table(tmp_path / "a.jsonl", ids(5), ["no_roadwork", "roadwork", "roadwork", "no_roadwork", "abstain"])
    given = labels(tmp_path / "y.jsonl", ids(5), y)
    counts = {e: judge(a, a, given, event=e).champion for e in ("wrong", "not_right", "missed", "false_alarm")}
    assert {k: (v.events, v.n) for k, v in counts.items()} == {
        "wrong": (2, 5), "not_right": (3, 5), "missed": (1, 3), "false_alarm": (1, 2),
    }  # fmt: skip


def test_ab_refuses_a_mixture(tmp_path: Path) -> None:
    a = table(tmp_path / "a.jsonl", ids(4), ["roadwork"] * 4)
    b = table(tmp_path / "b.jsonl", ids(4, 2), ["roadwork"] * 4)
    with pytest.raises(DataError, match="by both and others by one"):
        judge(a, b, labels(tmp_path / "y.jsonl", ids(6), [1] * 6))


@pytest.mark.stat
def test_looking_after_every_label_stops_falsely_at_most_delta() -> None:
    from workzone.monitoring.sequential import e_values

    rng = np.random.default_rng(3)
    # Unlike rates of errors, equal for both: the discordant pairs are fair coins.
    fired = (e_values((rng.random((1500, 400)) < 0.5).astype(float), 0.5) >= 20).any(axis=1).mean()
    assert fired <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
    one, two = rng.random(300) < 0.05, rng.random(300) < 0.3
    worse, better, limit = sequential(one, two, 0.05)
    assert worse.highest >= limit > better.highest
    assert worse.step == int((one != two).sum())


def test_fisher_agrees_with_a_known_table() -> None:
    # The lady tasting tea: three of four right on both sides.
    assert fisher(3, 4, 1, 4) == pytest.approx(34 / 70)


def test_power_is_reached_at_the_size_it_names() -> None:
    found = labels_needed(0.05, 0.15)
    rng = np.random.default_rng(4)
    a, b = (rng.binomial(found.split, q, 500) for q in (0.05, 0.15))
    seen = np.mean([fisher(int(x), found.split, int(y), found.split) < 0.05 for x, y in zip(a, b, strict=True)])
    assert 0.74 <= seen <= 0.88
    assert found.sequential is not None
    runs = rng.random((200, 2, found.sequential)) < np.array([0.05, 0.15])[None, :, None]
    stopped = np.mean([sequential(r[0], r[1], 0.05)[0].fired is not None for r in runs[:60]])
    assert stopped >= 0.65
    assert labels_needed(0.05, 0.1).split > found.split
    with pytest.raises(ValueError, match="must differ"):
        labels_needed(0.1, 0.1)
