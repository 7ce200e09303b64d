"""What the light commands import; measured by modules and not by time, so that a busy machine changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.command import environment
from workzone.bundle.starter import starter_bundle

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
@pytest.mark.parametrize("package", ["onnxruntime", "openvino", "nncf"])
def test_engines_report_to_nobody(package: str, tmp_path: Path) -> None:
    """Those that report keep a name of the machine in the folder of the user; in what they take for CI they do not."""
    pytest.importorskip(package, reason=f"{package} is not installed")
    silencing = ("CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "NNCF_DEV", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    env = {k: v for k, v in environment(HOME=str(tmp_path)).items() if k not in silencing}
    network = f"onnxruntime.InferenceSession({str(starter_bundle() / 'engine/head.onnx')!r})"
    code = f"import workzone, {package}; {network if package == 'onnxruntime' else ''}"
    subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=120, check=True)
    kept = {p.name for p in tmp_path.rglob("*")}
    assert not kept & {"Microsoft", "deviceid", "intel", "openvino_ga_cid"}, kept


@pytest.mark.e2e
def test_a_run_with_nothing_to_do_does_not_wait_for_torch(tiny_run: Path) -> None:
    found = after_command("run", "--config", tiny_run / "config.yaml")
    assert not found & {"torch", "timm", "lightning", "matplotlib"}


def test_the_first_process_of_a_container_ends_at_sigterm(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps from it the signals that it does not handle; tests/deploy/test_image.py tries a container."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        call("--version")
        assert signal.getsignal(signal.SIGTERM) is before, "any other process is left as it is"
        monkeypatch.setattr(os, "getpid", lambda: 1)
        call("--version")
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        with pytest.raises(SystemExit) as ended:
            handler(signal.SIGTERM, None)
        assert ended.value.code == 143
    finally:
        signal.signal(signal.SIGTERM, before)
