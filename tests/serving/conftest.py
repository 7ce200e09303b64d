from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

from starlette.testclient import TestClient

from workzone.decisions.policies.threshold import ThresholdPolicy
from workzone.serving.app import create_app
from workzone.serving.model import Model
from workzone.serving.settings import ServeSettings

LOCAL = "http://127.0.0.1"


@pytest.fixture(scope="session")
def opened(tiny_bundle: Path) -> Model:
    """The tiny bundle, opened once."""
    return Model.load(tiny_bundle, threads=1)


@pytest.fixture
def model(opened: Model) -> Model:
    """A model of its own, whose state a test may change."""
    return Model(opened.detector)


@pytest.fixture
def shy(model: Model) -> Model:
    """A model that abstains on every picture."""
    policy = ThresholdPolicy.from_parameters(model.detector.policy.parameters())
    policy.low, policy.high = replace(policy.low, threshold=0.0), replace(policy.high, threshold=1.0)
    model.detector = replace(model.detector, policy=policy)
    return model


Start = Callable[..., TestClient]


@pytest.fixture
def start(model: Model, tiny_bundle: Path) -> Iterator[Start]:
    """Starts the application with settings and gives a client of it."""
    with ExitStack() as stack:

        def go(served: Model = model, **settings: Any) -> TestClient:
            values = {"bundle": tiny_bundle, "check_seconds": 0, "grace_seconds": 5, **settings}
            app = create_app(ServeSettings(**values), model=served)
            return stack.enter_context(TestClient(app, base_url=LOCAL))

        yield go


@pytest.fixture(scope="session")
def picture(tiny_bundle: Path) -> bytes:
    """Bytes of a golden image."""
    return sorted((tiny_bundle / "golden").glob("*.png"))[0].read_bytes()


@pytest.fixture(scope="session")
def large_picture() -> bytes:
    """A picture that takes a while to decode."""
    import io

    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (2000, 3000, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG", compress_level=1)
    return out.getvalue()
