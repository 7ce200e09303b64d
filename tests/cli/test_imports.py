"""What the light commands import; measured by modules and not by time, so that a busy machine changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command import environment

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "peft",
    "lightning",
    "scipy",
    "polars",
    "matplotlib",
    "jinja2",
    "sklearn",
    "openvino",
    "nncf",
)
_TAIL = "; import json, sys; print('modules', json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"


def modules_after(code: str, *words: object) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code + _TAIL, *(str(w) for w in words)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("modules "))
    return set(json.loads(line.removeprefix("modules ")))


_MAIN = """
import contextlib
from workzone.cli.main import main
with contextlib.suppress(SystemExit):
    main()
"""


def after_command(*words: object) -> set[str]:
    return modules_after(_MAIN + "_ = 0", *words)


def test_import_of_the_package() -> None:
    found = modules_after("import workzone")
    assert not found & {*HEAVY, "onnxruntime", "omegaconf", "rich", "typer"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["predict", "--help"],
        ["data", "--help"],
        ["config", "show", "train"],
    ],
    ids=" ".join,
)
def test_help_and_configuration(words: list[str]) -> None:
    assert not after_command(*words) & {*HEAVY, "onnxruntime"}


def test_a_wrong_key_is_found_before_anything_heavy_is_imported() -> None:
    assert not after_command("run", "data=synthetic", "out=x", "trian.lr=1") & {*HEAVY, "onnxruntime"}


@pytest.mark.e2e
def test_predict_and_verify_need_the_core_alone(tiny_bundle: Path) -> None:
    image = next((tiny_bundle / "golden").glob("*.png"))
    for words in (["predict", image, "--bundle", tiny_bundle], ["verify", tiny_bundle]):
        found = after_command(*words)
        assert "onnxruntime" in found
        assert not found & set(HEAVY)


@pytest.mark.e2e
def test_a_run_with_nothing_to_do_does_not_wait_for_torch(tiny_run: Path) -> None:
    found = after_command("run", "--config", tiny_run / "config.yaml")
    assert not found & {"torch", "timm", "lightning", "matplotlib"}
