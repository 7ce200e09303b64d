from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workzone.config.load import PRESETS, build_config, dump_yaml, load_config, parse_words, walk_fields
from workzone.config.run import RunConfig
from workzone.errors import ConfigError

BASE = ("data=synthetic", "out=run")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_load_and_survive_a_round_trip(preset: str, tmp_path: Path) -> None:
    config = load_config([*BASE, f"preset={preset}"])
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    assert load_config([], file=tmp_path / "config.yaml") == config
    assert config != load_config([*BASE, "seed=1"])


def test_layers_weakest_first(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("source: {synthetic_images: 500}\nviews: {rows: 4}\ndecide: {target_fnr: 0.2}\n")
    config = load_config([*BASE, "preset=demo", "decide.target_fnr=0.3"], file=file)
    assert config.views.cols == 2, "from the preset"
    assert config.views.rows == 4, "the file wins over the preset"
    assert config.source.synthetic_images == 500
    assert config.decide.target_fnr == 0.3, "the command line wins over the file"
    assert config.fuse.k == 3, "a default"


def test_lists_replace_and_do_not_add() -> None:
    assert load_config([*BASE, "preset=demo", "export.also=[openvino-int8]"]).export.also == ("openvino-int8",)
    assert load_config([*BASE, "preset=demo", "export.also=[]"]).export.also == ()


def test_relative_paths_are_taken_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(["data=pictures", "out=a/../b", "model.weights=w.safetensors", "cache.folder=c"])
    assert config.data == str(tmp_path / "pictures")
    assert config.out == tmp_path / "b"
    assert config.model.weights == str(tmp_path / "w.safetensors")
    assert config.cache.folder == tmp_path / "c"
    assert load_config([*BASE, "model.weights=hub"]).model.weights == "hub"
    assert load_config(BASE).data == "synthetic"


@pytest.mark.parametrize("value", ["2024", "a b", "x#y", "a: b", "[x]", "1e-4", "true", "ä", "'q'"])
def test_paths_and_names_are_text_whatever_they_look_like(value: str) -> None:
    config = load_config([f"data={value}", "out=run", f"tracking.experiment={value}"])
    assert Path(config.data).name == value
    assert config.tracking.experiment == value


@pytest.mark.parametrize("empty", ["", "null"])
def test_optional_text_can_be_emptied(empty: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("cache: {folder: somewhere}\nmodel: {weights: w}\n")
    config = load_config([*BASE, f"cache.folder={empty}", f"model.weights={empty}"], file=file)
    assert config.cache.folder is None
    assert config.model.weights is None


@pytest.mark.parametrize("number", ["1e-4", "0.0001", "1E-4", "1.0e-04"])
def test_numbers_in_every_spelling(number: str, tmp_path: Path) -> None:
    assert load_config([*BASE, f"train.lr={number}"]).train.lr == 1e-4
    file = tmp_path / "keys.yaml"
    file.write_text(f"train: {{lr: {number}}}\n")
    assert load_config(BASE, file=file).train.lr == 1e-4


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("train.ir=1", "train.lr"),
        ("trian.lr=1", "train"),
        ("train.adaptor.rank=8", "train.adapter"),
        ("train.adapter.ranc=8", "train.adapter.rank"),
        ("views.row=1", "views.rows"),
        ("lr=1", "train.lr"),
        ("target_fnr=0.1", "decide.target_fnr"),
        ("evaluate.levle=0.9", "evaluate.level"),
        ("export.aslo=[]", "export.also"),
        ("sead=1", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest(word: str, meant: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([*BASE, word])
    named = error.value.what.removeprefix("unknown configuration key ").strip("'")
    assert word.startswith(named), "the part that is wrong"
    assert f"'{meant}'" in (error.value.fix or "")


def test_an_unknown_key_unlike_any_other() -> None:
    with pytest.raises(ConfigError, match="config show"):
        load_config([*BASE, "zzzzqqqq=1"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["seed"], "not of the form key=value"),
        (["=3"], "not of the form key=value"),
        (["seed=1", "seed=2"], "given twice"),
        (["preset=huge"], "there is no preset 'huge'"),
        (["train.epochs=many"], "train.epochs: Input should be a valid integer"),
        (["train.epochs=0"], "train.epochs: Input should be greater than or equal to 1"),
        (["train.epochs=1.5"], "train.epochs"),
        (["decide.target_fnr=1"], "decide.target_fnr: Input should be less than 1"),
        (["fuse.aggregator=mean"], "'attention', 'topk_mean', 'logsumexp'"),
        (["export.also=[tensorrt-fp32]"], "export.also.0"),
        (["evaluate.slices=source"], "evaluate.slices"),
        (["split.train=0.9"], "the four shares must sum to 1"),
        (["views.scales=[2.0]"], "scales must contain 1.0"),
        (["train=5"], "is a section, not a value"),
        (["train=5", "preset=full"], "is a section, not a value"),
        (["train.lr=["], "the value of 'train.lr' cannot be read"),
        (["train..lr=1"], "no configuration key"),
        (["seed=${nothing}"], "cannot be resolved"),
        (["train.lr.deep=1"], "train.lr"),
        (["source.kind=synthetic", "data=pictures"], "source.kind=synthetic"),
    ],
)
def test_wrong_words(words: list[str], says: str) -> None:
    base = [b for b in BASE if b.partition("=")[0] not in {w.partition("=")[0] for w in words}]
    with pytest.raises(ConfigError) as error:
        load_config([*base, *words])
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["data", "out"])
def test_what_must_be_given(key: str) -> None:
    with pytest.raises(ConfigError, match=f"the key '{key}' is missing"):
        load_config([w for w in BASE if not w.startswith(key)])
    with pytest.raises(ConfigError, match=f"the key '{key}' is missing"):
        load_config([*(w for w in BASE if not w.startswith(key)), f"{key}="])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "not valid YAML"),
        (b"- 1\n", "no mapping"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"trian: {lr: 1}", "'train'"),
    ],
)
def test_wrong_files(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load_config(BASE, file=file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(BASE, file=tmp_path / "none.yaml")


KEYS = [key for key, _ in walk_fields()]


@settings(max_examples=150, deadline=None)
@given(
    key=st.one_of(st.sampled_from(KEYS), st.text(max_size=12)),
    value=st.one_of(
        st.text(max_size=12), st.integers().map(str), st.floats().map(repr), st.sampled_from(["[]", "{a: 1}"])
    ),
)
def test_any_word_gives_a_configuration_or_one_paragraph(key: str, value: str) -> None:
    try:
        config = load_config(["data=synthetic", "out=run"] if key in ("data", "out") else [*BASE, f"{key}={value}"])
    except ConfigError:
        return
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


@settings(max_examples=50, deadline=None)
@given(lr=st.floats(1e-12, 1e6), epochs=st.integers(1, 10_000), compile_=st.booleans())
def test_values_arrive_as_they_were_written(lr: float, epochs: int, compile_: bool) -> None:
    train = load_config(
        [*BASE, f"train.lr={lr!r}", f"train.epochs={epochs}", f"train.compile={str(compile_).lower()}"]
    ).train
    assert (train.lr, train.epochs, train.compile) == (lr, epochs, compile_)


def test_parse_words_nests() -> None:
    assert parse_words(["resamples=200", "slices=[a,b]"]) == {"resamples": 200, "slices": ["a", "b"]}


@pytest.mark.parametrize("key", ["data", "out", "cache.folder"])
def test_a_path_with_a_null_character_is_refused(key: str) -> None:
    values = {"data": "synthetic", "out": "run"} | {key: "a\0b"}
    with pytest.raises(ConfigError, match="null character"):
        load_config([f"{name}={value}" for name, value in values.items()])


def test_finer_tiles_are_beside_the_default_grid_unless_something_else_is_said() -> None:
    for words in ([], ["preset=small"], ["views.flip=true"], ["views.rows=3"]):
        assert load_config([*BASE, *words]).views.grids == ((3, 3), (5, 5))
    assert load_config([*BASE, "views.layout=global"]).views.grids == ()
    assert load_config([*BASE, "views.layout=adaptive"]).views.grids == ()
    assert load_config([*BASE, "views.rows=2"]).views.grids == ((2, 3),)
    assert load_config([*BASE, "views.pyramid=[]"]).views.grids == ((3, 3),)
    assert load_config([*BASE, "views.pyramid=[[4,4],[6,2]]"]).views.grids == ((3, 3), (4, 4), (6, 2))
    with pytest.raises(ConfigError, match="layout=global has none"):
        load_config([*BASE, "views.layout=global", "views.pyramid=[[4,4]]"])


@pytest.mark.parametrize("word", ["views.pyramid=[]", "views.pyramid=[[4,4]]", "views.layout=global", "seed=1"])
def test_a_stored_configuration_keeps_its_grids(word: str) -> None:
    config = load_config([*BASE, word])
    assert build_config(config.model_dump(mode="json")).views == config.views
