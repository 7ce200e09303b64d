from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# importlib mode puts no folder on the path, and the helpers are shared by all test folders.
sys.path.insert(0, str(Path(__file__).parent))


LONGEST = "test_blocks.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The commands of the pages first: at the end, one process would be left alone with them."""
    items.sort(key=lambda item: item.path.name != LONGEST)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test session that all its processes see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_run(shared_folder: Path) -> Path:
    """Folder of a finished tiny run, built once a session; tests only read it. ``../cache`` is its cache."""
    import fcntl

    from helpers.command import workzone
    from helpers.tiny import tiny_words

    out = shared_folder / "tiny"
    failed = shared_folder / "tiny-failed.txt"
    # The lock is the own lock of this fixture: the lock of the engine refuses a second process, this one makes it wait.
    with (shared_folder / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failed.exists():
            pytest.fail(failed.read_text())
        if not (out / "bundle" / "bundle.json").exists():
            done = workzone("run", *tiny_words(out, shared_folder / "cache"))
            if done.returncode:
                failed.write_text(f"the tiny run ended with {done.returncode}:\n{done.stderr}")
                pytest.fail(failed.read_text())
    return out


@pytest.fixture(scope="session")
def ray_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Settings of a process that joins a cluster: the one of ``RAY_ADDRESS``, or two CPUs of this machine."""
    pytest.importorskip("ray", reason="ray is not installed")
    from helpers.cluster import SETTINGS, cluster

    if "RAY_ADDRESS" in os.environ:
        yield SETTINGS | {"RAY_ADDRESS": os.environ["RAY_ADDRESS"]}
        return
    with cluster(tmp_path_factory.mktemp("ray")) as address:
        yield SETTINGS | {"RAY_ADDRESS": address}


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run: Path) -> Path:
    """Bundle of the tiny run (onnxruntime-fp32); tests that change it copy it first."""
    return tiny_run / "bundle"


@pytest.fixture(scope="session")
def tiny_chain(tiny_run: Path, shared_folder: Path) -> Path:
    """Folder of a cascade whose cheap and dear model are two uses of the tiny run: ``bundle`` and ``evaluate``."""
    import fcntl

    from workzone.pipeline.commands.chain import ChainOptions, build_chain
    from workzone.pipeline.phase import Progress

    out = shared_folder / "chain"
    decide = {"target_fnr": 0.7, "budget": 0.5}
    with (shared_folder / "chain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "bundle" / "bundle.json").exists():
            options = ChainOptions(looks=((1, 2), (2, 5)), costs=(1.0, 4.0), mean=True, decide=decide)
            build_chain([tiny_run, tiny_run], out, options, Progress())
    return out


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run ``workzone`` in this process through its entry point, where errors are turned into paragraphs."""

    def run(*words: object) -> Answer:
        from workzone.cli.main import main

        monkeypatch.setattr(
            sys, "argv", ["workzone", *(os.fspath(w) if isinstance(w, os.PathLike) else str(w) for w in words)]
        )
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        captured = capfd.readouterr()
        return Answer(code, captured.out, captured.err)

    return run
