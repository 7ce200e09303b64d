from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from promised import Make, promise

from helpers.forgery import edit_json, edit_manifest, reseal
from workzone.bundle import schema
from workzone.registry.store import Registry


def cheap(source: str, target: str) -> None:
    """Copy a file; the network, which no test changes in place, is linked."""
    (os.link if source.endswith(".onnx") else shutil.copy2)(source, target)


@pytest.fixture
def make(tiny_bundle: Path, tmp_path: Path) -> Make:
    """Bundles that differ in name, promise and figures, sealed so that they verify."""

    def go(
        name: str = "one",
        *,
        alpha: float | None = None,
        auroc: tuple[float, float, float] | None = None,
        test_images: str | None = None,
        metrics: Callable[[Any], Any] | None = None,
        parity: Callable[[Any], Any] | None = None,
    ) -> Path:
        folder = Path(shutil.copytree(tiny_bundle, tmp_path / "made" / name, copy_function=cheap))
        if alpha is not None:
            edit_json(folder / schema.CERTIFICATE, lambda c: c.update(guarantees=[promise(alpha)]))
        if auroc is not None:
            value, low, high = auroc
            text = f"{value} [{low}, {high}]"
            figure = {"value": value, "low": low, "high": high, "text": text}
            edit_json(folder / schema.METRICS, lambda m: m.update(systems={"argmax": {"natural": {"auroc": figure}}}))
        if metrics is not None:
            edit_json(folder / schema.METRICS, metrics)
        if parity is not None:
            edit_json(folder / schema.PARITY, parity)
        reseal(folder)

        def rename(values: dict[str, Any]) -> None:
            values["name"] = name
            if test_images is not None:
                values["lineage"]["split_sha256"] = test_images

        edit_manifest(folder, rename)
        return folder

    return go


@pytest.fixture(autouse=True)
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laying out a database takes MLflow seconds; tests that are about it say another word."""
    monkeypatch.setenv("WORKZONE_MLFLOW", "off")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")
