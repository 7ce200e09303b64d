"""A PostgreSQL server of its own, for tests that ask a real one; it asks for a password."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

PASSWORD = "correct-horse-battery"
USER = "workzone"


def binaries() -> Path:
    """Folder of ``initdb`` and ``pg_ctl``; skips where there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders or not (folders[-1] / "pg_ctl").exists():
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    return folders[-1]


class Postgres:
    """A server that listens on this machine; ``uri`` holds no password, ``environment`` does."""

    def __init__(self) -> None:
        self.bin = binaries()
        # It refuses to run as root, and its user cannot look into the folder of a test.
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user is not None:
            try:
                account = pwd.getpwnam(self.user)
            except KeyError:
                pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
        self.root = Path(tempfile.mkdtemp(prefix="workzone-postgres-"))
        if self.user is not None:
            os.chown(self.root, account.pw_uid, account.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        self.environment = {"PGPASSWORD": PASSWORD}
        try:
            secret = self.root / "secret"
            secret.write_text(PASSWORD)
            secret.chmod(0o644)
            words = ["--username", USER, "--pwfile", str(secret), "--auth", "scram-sha-256", "--no-sync"]
            self._run("initdb", "--pgdata", str(self.root / "data"), *words)
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it; returns when it answers."""
        options = f"-p {self.port} -k {self.root} -c listen_addresses=127.0.0.1 -c fsync=off"
        words = ["--pgdata", str(self.root / "data"), "-w", "-l", str(self.root / "log"), "-o", options]
        self._run("pg_ctl", *words, "start")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._run("pg_ctl", "--pgdata", str(self.root / "data"), "-m", "immediate", "stop")

    def close(self) -> None:
        """End it and remove its folder."""
        if (self.root / "data/postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self.root)

    def _run(self, program: str, *words: str) -> None:
        # What the server inherits stays open for as long as it runs, so its output goes to a file.
        with (self.root / f"{program}.txt").open("w") as said:
            done = subprocess.run(
                [str(self.bin / program), *words],
                cwd=self.root, user=self.user, stdout=said, stderr=said, timeout=120, check=False,
            )  # fmt: skip
        assert done.returncode == 0, (self.root / f"{program}.txt").read_text()
