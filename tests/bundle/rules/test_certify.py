"""Tables of predictions are calibrated and certified as the parts of the house do it, and written as a rule."""

from __future__ import annotations

import importlib.util
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from workzone import decisions
from workzone.bundle.rules import rule as rules
from workzone.bundle.rules.answers import answers
from workzone.bundle.rules.card import make_card
from workzone.bundle.rules.certify import Certified, Settings, certify
from workzone.bundle.rules.rule import Rule, RuleFolder
from workzone.bundle.rules.write import write_certified
from workzone.calibration import create
from workzone.config.deciding import CalibrateConfig, DecideConfig
from workzone.config.run import EvaluateConfig
from workzone.data.roles import CalibData
from workzone.errors import BundleError, CheckFailedError, ConfigError, DataError, LeakageError
from workzone.evaluation.figures import Draws
from workzone.evaluation.given import load_given
from workzone.predictions import logit, sigmoid

ROOT = Path(__file__).parents[3]
QUICK = EvaluateConfig(resamples=100, gallery=0)
DRAWS = Draws(100, "percentile", 0.95, True, 0)
DATE = datetime(2026, 1, 2, tzinfo=UTC)


def table(path: Path, n: int = 2000, *, score: str = "log_odds", seed: int = 0, **columns: Any) -> Path:
    """Scores that are twice as sure as they should be; further columns as given."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(-1.0, 3.5, n)
    y = (rng.random(n) < sigmoid(honest)).astype(int)
    u = 2.0 * honest
    ids = [f"i{i:05d}" for i in range(n)]
    scores = {"log_odds": u} if score == "log_odds" else {"probability": sigmoid(u)}
    pl.DataFrame({"id": ids, "label": y, **scores, **columns}).write_csv(path)
    return path


def settings(seed: int = 0, **decide: Any) -> Settings:
    decide = {"target_fnr": 0.05, **decide}
    return Settings(CalibrateConfig(), DecideConfig(**decide), seed)


def done(path: Path, **decide: Any) -> Certified:
    return certify(load_given(path), settings(**decide), created=DATE)


def example() -> Any:
    spec = importlib.util.spec_from_file_location("example", ROOT / "examples/calibrate_your_own_scores.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rule without test images; tests only read it."""
    place = tmp_path_factory.mktemp("rule")
    write_certified(done(table(place / "mine.csv")), place / "rule", QUICK)
    return place / "rule"


@pytest.mark.parity
@pytest.mark.parametrize("score", ["log_odds", "probability"])
def test_the_same_comes_out_as_by_hand(tmp_path: Path, score: str) -> None:
    groups = [f"drive-{i // 3}" for i in range(2000)]
    path = table(tmp_path / "mine.csv", score=score, group=groups)
    module = example()
    selection, policy, second = module.fit(module.read_scores(path))
    ours = Settings(
        CalibrateConfig(candidates=("temperature", "platt", "beta")),
        DecideConfig(target_fnr=0.05, if_not_certifiable="abstain"),
        seed=0,
    )
    found = certify(load_given(path), ours)
    assert found.calibrator.to_dict() == selection.best.to_dict()
    assert found.policy.to_dict() == policy.to_dict()
    assert found.certificate.guarantees == policy.guarantees
    assert found.second.ids.tolist() == second.ids.tolist()


def test_groups_stay_whole(tmp_path: Path) -> None:
    groups = [f"drive-{i % 150}" for i in range(2000)]
    found = done(table(tmp_path / "mine.csv", group=groups), unit="group", target_fnr=0.5)
    assert not set(found.first.groups.tolist()) & set(found.second.groups.tolist())
    assert found.certificate.guarantees[0].unit == "group"
    split = ["test" if i % 2 else "calibration" for i in range(2000)]
    pairs = [f"drive-{i // 2}" for i in range(2000)]
    with pytest.raises(LeakageError, match="1000 groups have calibration images and images of another split") as told:
        done(table(tmp_path / "leak.csv", group=pairs, split=split))
    assert told.value.exit_code == 3
    kept = done(table(tmp_path / "kept.csv", split=split))
    assert {int(i[1:]) % 2 for part in (kept.first, kept.second) for i in part.ids.tolist()} == {0}
    assert int(kept.test.sum()) == 1000


def test_every_image_that_is_used_was_meant_for_it(tmp_path: Path) -> None:
    split = np.array(["train", "calibration", "calibration", "calibration"])[np.arange(2000) % 4]
    found = done(table(tmp_path / "mine.csv", split=split))
    assert len(found.first) + len(found.second) == 1500
    assert (found.unused, int(found.test.sum())) == (500, 0)
    card = make_card(found, DRAWS)
    assert any("names no test images" in s for s in card.images)
    assert any("500 rows of another split" in s for s in card.images)
    with pytest.raises(DataError, match="names no calibration images"):
        done(table(tmp_path / "none.csv", split=["test"] * 2000))


def test_refused_with_the_reason(tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv")
    for words, said in (
        ({"policy": "cascade"}, "decide.policy=threshold"),
        ({"policy": "gate"}, "decide.policy=sgr"),
        ({"policy": "gate", "gate_model": "mlp"}, "gate_model=logistic"),
        ({"policy": "scrc", "select_by": "view_variance"}, "select_by=max_probability"),
    ):
        with pytest.raises(ConfigError, match=said):
            done(path, **words)
    pl.read_csv(path).drop("label").write_csv(tmp_path / "bare.csv")
    with pytest.raises(DataError, match="no column 'label'"):
        done(tmp_path / "bare.csv")
    with pytest.raises(DataError, match="of 1 group"):
        done(table(tmp_path / "one.csv", group=["drive"] * 2000))
    with pytest.raises(DataError, match="needs both classes"):
        done(table(tmp_path / "few.csv", n=3))


def test_not_certifiable_is_an_answer_unless_it_should_stop(tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv", n=300)
    found = done(path, target_fnr=0.001)
    assert not found.certificate.certified
    card = make_card(found, DRAWS)
    assert card.status == "not certifiable"
    assert card.promises[0].startswith("Not certifiable")
    assert "answers all the same" in card.promises[1]
    with pytest.raises(CheckFailedError):
        done(path, target_fnr=0.001, if_not_certifiable="stop")


@pytest.mark.parametrize(
    ("policy", "viewed"), [*((p, True) for p in decisions.POLICIES if p != "cascade"), ("gate", False), ("scrc", False)]
)
def test_every_policy_comes_back_and_decides_the_same(tmp_path: Path, policy: str, viewed: bool) -> None:
    rng = np.random.default_rng(1)
    views = {f"view_log_odds_{v}": rng.normal(0, 2, 2000) for v in range(3)} if viewed else {}
    path = table(tmp_path / "mine.csv", **views)
    frame = pl.read_csv(path)
    wrong = (frame["log_odds"].to_numpy() > 0) != frame["label"].to_numpy()
    frame.with_columns(pl.Series("mutual_information", wrong + rng.random(2000))).write_csv(path)
    by = {"select_by": "mutual_information"} if policy == "scrc" else {}
    found = done(path, policy=policy, target_risk=0.2, alpha=0.2, **by)
    write_certified(found, tmp_path / "rule", QUICK)
    rule = Rule.load(tmp_path / "rule")
    given = load_given(path, answers=False)
    again = rule.decide(rule.scores_of(given))
    at = {image_id: i for i, image_id in enumerate(given.predictions.ids.tolist())}
    rows = [at[i] for i in found.second.ids.tolist()]
    assert again.codes[rows].tolist() == found.decided.codes.tolist()
    assert bool(rule.policy.needs) == (policy in ("gate", "scrc"))
    if rule.policy.needs:
        pl.read_csv(path).select("id", "log_odds").write_csv(tmp_path / "bare.csv")
        with pytest.raises(DataError, match="needs the measure"):
            rule.scores_of(load_given(tmp_path / "bare.csv"))


@pytest.mark.parametrize("method", ["none", "temperature", "platt", "beta", "isotonic", "spline", "histogram", "ets"])
def test_limits_are_those_of_the_decisions(method: str) -> None:
    rng = np.random.default_rng(2)
    u = rng.normal(0, 3, 2000)
    data = CalibData.from_arrays(rng.random(2000) < sigmoid(u / 2), u)
    first, second = data.disjoint_parts(0.5, seed=0)
    calibrator = create(method).fit(first)
    policy = decisions.create("threshold", target_fnr=0.1, target_fpr=0.1)
    decisions.fit_policy(policy, calibrator, second, calibration=first)
    found = answers(calibrator, policy)
    assert found is not None
    stored = policy.parameters()
    limits = [a.probability[0] for a in found[1:]]
    assert limits == pytest.approx([stored["t_low"], stored["t_high"]], abs=1e-15)
    new = rng.normal(0, 4, 5000)
    codes = policy.decide(calibrator(new)).codes
    for a in found:
        if a.log_odds is None:
            assert method == "histogram", "only bins may fall, so that one answer has several stretches"
            continue
        low, high = (-np.inf if a.log_odds[0] is None else a.log_odds[0]), (a.log_odds[1] or np.inf)
        inside = (new >= low) & (new < high)
        assert [decisions.types.NAMES[c] for c in codes[inside].tolist()] == [a.name] * int(inside.sum())


def test_slices_are_read_from_the_table(tmp_path: Path) -> None:
    van = np.array(["van-1", "van-2"])[np.arange(2000) % 2]
    path = table(tmp_path / "mine.csv", van=van)
    by = Settings(CalibrateConfig(method="per_slice", slice_column="van"), DecideConfig(target_fnr=0.05), 0)
    found = certify(load_given(path), by)
    assert found.calibrator.needs == ("van",)
    assert {row[2] for row in make_card(found, DRAWS).answers} == {"by more than the score"}
    write_certified(found, tmp_path / "rule", QUICK)
    pl.read_csv(path).drop("van").write_csv(tmp_path / "bare.csv")
    rule = Rule.load(tmp_path / "rule")
    with pytest.raises(DataError, match="no column 'van'"):
        rule.decide(rule.scores_of(load_given(tmp_path / "bare.csv")))


def test_probabilities_of_0_and_1_are_counted_and_kept_finite(tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv", score="probability")
    frame = pl.read_csv(path).with_columns(pl.col("probability").round(1))
    frame.write_csv(path)
    extreme = int(frame["probability"].is_in([0.0, 1.0]).sum())
    found = done(path)
    assert np.abs(np.concatenate([found.first.scores, found.second.scores])).max() == pytest.approx(27.631, abs=1e-3)
    assert any(f"{extreme:,} of 2,000 probabilities" in s for s in make_card(found, DRAWS).limits)


def test_the_score_is_the_one_that_was_certified(tmp_path: Path, written: Path) -> None:
    rule = Rule.load(written)
    assert rule.record.table.score == "log_odds"
    with pytest.raises(DataError, match="no column 'log_odds'"):
        rule.scores_of(load_given(table(tmp_path / "p.csv", score="probability")))
    by_p = table(tmp_path / "by_p.csv", score="probability")
    write_certified(done(by_p), tmp_path / "rule", QUICK)
    second = Rule.load(tmp_path / "rule")
    both = pl.read_csv(by_p).with_columns(log_odds=pl.lit(0.0))
    both.write_csv(tmp_path / "both.csv")
    with pytest.raises(DataError, match="say different things"):
        second.scores_of(load_given(tmp_path / "both.csv"))
    scores = second.scores_of(load_given(by_p)).log_odds
    assert scores == pytest.approx(logit(pl.read_csv(by_p)["probability"].to_numpy()))
    assert second.outside(second.scores_of(load_given(by_p))) == 0


@pytest.mark.parametrize("name", [*rules.required(Path()), "rule.json"])
@pytest.mark.parametrize("how", ["byte", "cut", "gone"])
def test_a_changed_folder_is_refused(tmp_path: Path, written: Path, name: str, how: str) -> None:
    copy = tmp_path / "rule"
    shutil.copytree(written, copy)
    content = (copy / name).read_bytes()
    if how == "gone":
        (copy / name).unlink()
    elif how == "cut":
        (copy / name).write_bytes(content[: len(content) // 2])
    else:
        at = content.index(b"1")
        (copy / name).write_bytes(content[:at] + b"2" + content[at + 1 :])
    with pytest.raises(BundleError) as told:
        Rule.load(copy)
    assert name in str(told.value)


def test_a_record_that_was_sealed_again_cannot_lead_elsewhere(tmp_path: Path, written: Path) -> None:
    from workzone.bundle import schema
    from workzone.files import read_json, write_atomic

    copy = tmp_path / "rule"
    shutil.copytree(written, copy)
    values = {k: v for k, v in read_json(copy / "rule.json").items() if k != "sha256"}
    outside = {**values, "files": {**values["files"], "../../secret": {"sha256": "0" * 64, "size": 1}}}
    write_atomic(copy / "rule.json", schema.seal(outside))
    with pytest.raises(BundleError, match="no place in a rule"):
        Rule.load(copy)
    other = {**values, "table": {**values["table"], "sha256": "0" * 64}}
    write_atomic(copy / "rule.json", schema.seal(other))
    with pytest.raises(BundleError, match="certificate is void"):
        Rule.load(copy)
    write_atomic(copy / "rule.json", schema.seal({**values, "schema_version": 2}))
    with pytest.raises(BundleError, match="schema version '2'"):
        Rule.load(copy)


def test_only_a_rule_is_replaced(tmp_path: Path, written: Path) -> None:
    copy = tmp_path / "rule"
    shutil.copytree(written, copy)
    rules.require_replaceable(copy)
    rules.require_replaceable(tmp_path / "new")
    (copy / "decided.csv").write_text("id\n")
    Rule.load(copy)
    with pytest.raises(ConfigError, match=r"'decided\.csv' beside the rule"):
        rules.require_replaceable(copy)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"1")
    with pytest.raises(ConfigError, match="something else than a rule"):
        rules.require_replaceable(tmp_path / "photos")
    with pytest.raises(ConfigError, match="not a folder"):
        rules.require_replaceable(written / "rule.json")


def test_a_stopped_writer_leaves_the_old_rule(
    tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "rule"
    shutil.copytree(written, copy)
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    found = done(table(tmp_path / "mine.csv", seed=5))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rules, "write_atomic", stop)
    with pytest.raises(KeyboardInterrupt):
        write_certified(found, copy, QUICK)
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.csv", "rule"]


def test_the_same_table_gives_the_same_bytes(tmp_path: Path, written: Path) -> None:
    for name, date in (("one", DATE), ("two", datetime(2027, 1, 1, tzinfo=UTC))):
        found = certify(load_given(table(tmp_path / "mine.csv")), settings(), created=date)
        write_certified(found, tmp_path / name, QUICK)
    one, two = tmp_path / "one", tmp_path / "two"
    files = sorted(p.name for p in one.iterdir())
    assert files == sorted([*rules.required(one), "rule.json"])
    assert {name for name in files if (one / name).read_bytes() == (written / name).read_bytes()} == set(files)
    dated = {name for name in files if (one / name).read_bytes() != (two / name).read_bytes()}
    assert dated == {"certificate.json", "rule.json"}


def test_the_card_says_what_nobody_can_check(written: Path) -> None:
    text = RuleFolder(written).card.read_text()
    assert "Nothing here can check that later scores come from that model" in text
    assert "Nothing was left to measure on" in text
    assert "| no_roadwork | below " in text
    assert "## Promise: certified" in text


def test_one_of_two_promises(tmp_path: Path) -> None:
    found = done(table(tmp_path / "mine.csv"), target_fpr=0.0001)
    card = make_card(found, DRAWS)
    assert card.status == "1 of 2 certified"
    assert [s.partition(" ")[0] for s in card.promises[:2]] == ["With", "Not"]
