"""The image of deploy/docker is built, and run as deploy/compose.yaml runs it: confined, asked, stopped."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.containers import BASE, Containers, wait_for
from workzone.bundle.starter import starter_bundle

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef"
CONFINED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
ASK = """
import json, sys, urllib.error, urllib.request
def ask(path, headers={}, content=None):
    request = urllib.request.Request('http://127.0.0.1:8000' + path, content, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Containers]:
    made = Containers()
    yield made
    made.clean()


@pytest.fixture(scope="module")
def image(engine: Containers) -> str:
    engine.need(BASE)
    return engine.build(f"workzone-test:{secrets.token_hex(4)}", ROOT / "deploy/docker/Dockerfile.cpu", ROOT)


@pytest.fixture(scope="module")
def bundle() -> Path:
    found = starter_bundle()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def server(engine: Containers, image: str, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A server with the command of the image; the tests after it share it, and the last one stops it."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(bundle, folder / "bundle")
    (folder / "keys").write_text(f"test sha256:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    mounts = ["-v", f"{folder}/bundle:/bundle:ro,z", "-v", f"{folder}/keys:/run/secrets/workzone-keys:ro,z"]
    name = engine.run(f"workzone-test-{secrets.token_hex(4)}", *CONFINED, *mounts, image)
    wait_for(
        lambda: engine.python(name, f"{ASK}print(ask('/readyz')[0])") == "200",
        90,
        lambda: engine("logs", name, code=None).stderr,
    )
    return name


def ask(engine: Containers, name: str, call: str) -> Any:
    return json.loads(engine.python(name, f"{ASK}print(json.dumps({call}))"))


def test_it_decides_for_those_with_a_key(engine: Containers, server: str, bundle: Path) -> None:
    golden = json.loads((bundle / "golden/cases.json").read_text())["cases"][0]
    picture = f"open('/bundle/{golden['image']}', 'rb').read()"
    kind = {"Content-Type": "image/jpeg"}
    status, text = ask(engine, server, f"ask('/v1/predict', {kind | {'Authorization': f'Bearer {KEY}'}}, {picture})")
    assert status == 200, text
    answer = json.loads(text)
    assert answer["decision"] == golden["decision"]
    assert answer["log_odds"] == pytest.approx(golden["log_odds"], abs=0.05)
    assert answer["certificate"]["status"] != "void"
    assert ask(engine, server, f"ask('/v1/predict', {kind}, {picture})")[0] == 401
    assert ask(engine, server, "ask('/metrics')")[0] == 401
    figures = ask(engine, server, f"ask('/metrics', {{'Authorization': 'Bearer {KEY}'}})")[1]
    assert "workzone_predictions_total" in figures


def test_it_is_healthy(engine: Containers, server: str) -> None:
    wait_for(lambda: engine.healthy(server), 60, lambda: json.dumps(engine.inspect(server)["State"]))


def test_it_is_confined(engine: Containers, server: str) -> None:
    lines = engine("exec", server, "cat", "/proc/1/status").stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    tried = "\n".join([
        "import errno, pathlib",
        "for place in ('/opt/workzone', '/', '/bundle', '/state', '/tmp'):",
        "    try:",
        "        (pathlib.Path(place) / 'tried').write_text('x')",
        "        print('written')",
        "    except OSError as error:",
        "        print(errno.errorcode[error.errno])",
    ])  # fmt: skip
    assert engine.python(server, tried).split() == ["EROFS"] * 4 + ["written"]


def test_it_holds_what_it_needs_and_no_more(engine: Containers, server: str) -> None:
    asked = "from importlib.metadata import distributions as d; print(*sorted(x.name.lower() for x in d()))"
    held = set(engine.python(server, asked).split())
    assert {"workzone", "onnxruntime", "fastapi", "polars"} <= held
    assert not held & {"torch", "mlflow", "pytest", "pip", "setuptools", "ray"}
    checked = engine("exec", server, "python3", "-c", "import sys; print(sys.prefix)").stdout.strip()
    assert checked == "/opt/workzone"
    engine("exec", "--env", "HOME=/tmp", server, "pip", "--python", "/opt/workzone/bin/python", "check")
    found = engine("exec", server, "find", "/src", "/app", code=None)
    assert found.stdout == "", "the sources stay in the stage that builds"


def test_sigterm_ends_the_server_with_0(engine: Containers, server: str) -> None:
    begun = time.monotonic()
    engine("stop", "--time", "40", server)
    assert time.monotonic() - begun < 30
    assert engine.inspect(server)["State"]["ExitCode"] == 0
    logs = engine("logs", server)
    assert '"stopped"' in logs.stdout + logs.stderr


def test_sigterm_ends_other_commands_too(engine: Containers, image: str) -> None:
    """The kernel keeps from the first process of a container the signals that it does not handle."""
    name = engine.run(f"workzone-test-{secrets.token_hex(4)}", *CONFINED, "--interactive", image, "predict", "-")

    def handles() -> bool:
        status = engine("exec", name, "cat", "/proc/1/status").stdout
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught.split()[1], 16) >> 14 & 1)

    wait_for(handles, 30)
    begun = time.monotonic()
    engine("stop", "--time", "20", name)
    assert time.monotonic() - begun < 15
    assert engine.inspect(name)["State"]["ExitCode"] == 143
