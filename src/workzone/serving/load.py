"""Load test of a running server by Locust: a report that the checklist can judge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workzone.bundle.chain import read_bundle
from workzone.errors import CheckFailedError, ConfigError, DataError, MissingExtraError, WorkzoneError, unreadable
from workzone.registry.gates import Gate

PICTURES, OUT, PAUSE, KEY = "WORKZONE_LOAD_PICTURES", "WORKZONE_LOAD_OUT", "WORKZONE_LOAD_PAUSE", "WORKZONE_API_KEY"
MIN_REQUESTS = 1000
"""Answers below which a 99 % quantile rests on fewer than ten of them."""
MIN_SECONDS = 30.0
MAX_FILE = 1024 * 1024
_START = 20.0


class LoadReport(BaseModel):
    """What a load test measured, and the limits it was made for; times in milliseconds, of answers with status 200."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(default=1, ge=1, le=1)
    created: str
    url: str
    bundle_sha256: str
    users: int = Field(ge=1)
    pause: float = Field(ge=0)
    seconds: float = Field(ge=0)
    statuses: dict[str, int]
    """Requests by status; 0 where the connection broke."""
    p50: float | None
    p95: float | None
    p99: float | None
    slowest: float | None
    limit_p99: float = Field(gt=0)
    limit_failed: float = Field(ge=0, lt=1)

    @property
    def requests(self) -> int:
        """All that were sent."""
        return sum(self.statuses.values())

    @property
    def failed(self) -> float:
        """Share of requests with another status than 200."""
        return (self.requests - self.statuses.get("200", 0)) / self.requests if self.requests else 1.0

    def problems(self) -> list[str]:
        """Why the limits are not shown to hold; empty where they are."""
        found = []
        if self.requests < MIN_REQUESTS or self.seconds < MIN_SECONDS:
            enough = max(MIN_SECONDS, 1.1 * MIN_REQUESTS * self.seconds / max(self.requests, 1))
            longer = f"; at this rate --seconds {enough:.0f} would do" if self.requests else ""
            found.append(
                f"{self.requests} requests in {self.seconds:.0f} s show little: "
                f"at least {MIN_REQUESTS} in {MIN_SECONDS:.0f} s are asked for{longer}"
            )
        if self.failed > self.limit_failed:
            counts = ", ".join(f"{k}: {n}" for k, n in sorted(self.statuses.items()))
            found.append(f"{self.failed:.2%} of the requests failed, allowed {self.limit_failed:.2%} ({counts})")
        if self.p99 is None or self.p99 > self.limit_p99:
            measured = "unknown" if self.p99 is None else f"{self.p99:.0f} ms"
            found.append(f"p99 is {measured}, the limit {self.limit_p99:g} ms")
        return found

    def sentence(self) -> str:
        """The measured figures."""
        rate = self.requests / self.seconds if self.seconds else 0.0
        times = "no answer" if self.p99 is None else f"p50 {self.p50:.0f}, p95 {self.p95:.0f}, p99 {self.p99:.0f} ms"
        n = f"{self.requests} requests in {self.seconds:.0f} s"
        return f"{n} from {self.users} users, {rate:.1f} a second, {times}, {self.failed:.2%} failed"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a report; raises DataError where it is none."""
        try:
            with path.open("rb") as stream:
                return cls.model_validate_json(stream.read(MAX_FILE))
        except OSError as error:
            raise unreadable(DataError, "the report of a load test", path, error) from error
        except ValidationError as error:
            what = f"this is no report of a load test: {error.errors()[0]['msg']}"
            raise DataError(what, where=str(path), fix="make one with: workzone load") from error


def load_gate(report: Path | None, bundle: Path) -> Gate:
    """Whether a load test of this very bundle held its limits; not judged without a report."""
    if report is None:
        return Gate("load test", None, "not given: --load-test (workzone load)")
    try:
        read, wanted = LoadReport.read(report), read_bundle(bundle).sha256
    except WorkzoneError as error:
        return Gate("load test", False, str(error))
    if read.bundle_sha256 != wanted:
        return Gate("load test", False, f"it tested bundle {read.bundle_sha256[:12]}, not {wanted[:12]}")
    problems = read.problems()
    return Gate("load test", not problems, "; ".join(problems) or f"{read.sentence()}, limit {read.limit_p99:g} ms")


def run_load(
    url: str,
    pictures: Sequence[Path],
    *,
    users: int,
    seconds: float,
    pause: float = 0.0,
    key: str | None = None,
    limit_p99: float,
    limit_failed: float = 0.0,
    html: Path | None = None,
) -> LoadReport:
    """Ask the server at ``url`` with ``users`` users side by side for ``seconds``.

    Args:
        url: of the server, http or https.
        pictures: files that are sent in turn.
        users: each waits for its answer, then ``pause`` seconds, and asks again.
        seconds: length of the test.
        pause: seconds.
        key: API key.
        limit_p99: milliseconds.
        limit_failed: share of requests that may fail; a refused one (429) has failed.
        html: where Locust writes its page, if anywhere.

    Raises:
        MissingExtraError: Locust is not installed.
        ConfigError: the address or the pictures are not good.
        CheckFailedError: the server cannot be asked, changed its bundle meanwhile, or Locust failed.
    """
    try:
        from importlib.metadata import PackageNotFoundError, version

        version("locust")
    except PackageNotFoundError as error:
        raise MissingExtraError("locust", "load", feature="the load test") from error
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError("this is no address of a server", where=url[:80], fix="write http://HOST:PORT")
    missing = [p for p in pictures if not p.is_file()]
    if missing or not pictures:
        where = str(missing[0]) if missing else None
        raise ConfigError("there is no picture to send", where=where, fix="give files or a folder of pictures")
    bundle = _bundle(url, key)
    with tempfile.TemporaryDirectory(prefix="workzone-load-") as name:
        raw = Path(name) / "raw.json"
        words = [sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--headless"]
        words += ["--host", url.rstrip("/"), "--users", str(users), "--spawn-rate", str(max(users, 1))]
        words += ["--run-time", f"{max(round(seconds), 1)}s", "--stop-timeout", "60", "--only-summary"]
        words += ["--loglevel", "WARNING", "--exit-code-on-error", "0", "--skip-log-setup"]
        words += ["--html", str(html.absolute())] if html else []
        environment = {**os.environ, PICTURES: json.dumps([str(p.absolute()) for p in pictures]), OUT: str(raw)}
        environment |= {PAUSE: str(pause), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        environment[KEY] = key or ""
        longest = seconds + 120 + _START
        done = subprocess.run(
            words, env=environment, cwd=name, capture_output=True, text=True, timeout=longest, check=False
        )
        if done.returncode or not raw.is_file():
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing was said"]
            raise CheckFailedError(f"Locust failed: {said[0][:300]}", where=url, fix="see docs/how-to/serve.md")
        told = json.loads(raw.read_text())
    if _bundle(url, key) != bundle:
        raise CheckFailedError("the server changed its bundle during the test", where=url, fix="test again")
    times = sorted(told["milliseconds"])
    return LoadReport(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        url=url,
        bundle_sha256=bundle,
        users=users,
        pause=pause,
        seconds=told["seconds"],
        statuses=told["statuses"],
        p50=_quantile(times, 0.50),
        p95=_quantile(times, 0.95),
        p99=_quantile(times, 0.99),
        slowest=times[-1] if times else None,
        limit_p99=limit_p99,
        limit_failed=limit_failed,
    )


def _quantile(times: Sequence[float], q: float) -> float | None:
    """The smallest time that a share ``q`` of the answers did not exceed."""
    return times[max(-int(-q * len(times) // 1) - 1, 0)] if times else None


def _bundle(url: str, key: str | None) -> str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{url.rstrip('/')}/v1/model", headers=headers), timeout=30
        ) as answer:
            return str(json.loads(answer.read(MAX_FILE))["bundle"]["sha256"])
    except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError) as error:
        what = f"the server does not say what it serves: {error}"
        raise CheckFailedError(what, where=url, fix="check the address, and WORKZONE_API_KEY") from error
