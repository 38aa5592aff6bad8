"""A Postgres server of our own in a folder, from the system's binaries: for tests, benchmarks and trying things out."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speciate.core.errors import ConfigError, InvariantError

START_S = 60.0
PAUSE_S = 0.1


class PrivatePostgres:
    """Runs as the user `postgres` where we are root, as Postgres refuses root. `start` and `stop` may alternate."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder = folder.absolute()
        self._binaries = binaries
        self._user = "postgres" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise InvariantError("This Postgres does not run; start it first.")
        return self._process

    def start(self) -> None:
        if not (self._folder / "PG_VERSION").exists():
            self._initialise()
        flags = ["-D", str(self._folder), "-p", str(self.port), "-h", "127.0.0.1", "-k", "", "-c", "max_connections=50"]
        log = (self._folder.parent / "postgres.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), *flags], stdout=log, stderr=log, user=self._user, cwd="/"
            )
        self._wait_until_ready()

    def stop(self, kind: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends connections and shuts down; SIGQUIT is a crash."""
        self.process.send_signal(kind)
        self.process.wait(START_S)
        self._process = None

    def create_database(self, name: str) -> str:
        """A new empty database; gives its URL."""
        command = [str(self._binaries / "psql"), "-q", "-d", self.url(), "-c", f'CREATE DATABASE "{name}"']
        subprocess.run(command, check=True, capture_output=True, cwd="/")
        return self.url(name)

    def _initialise(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        command = [
            str(self._binaries / "initdb"),
            "-D",
            str(self._folder),
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
        ]
        subprocess.run(command, check=True, capture_output=True, user=self._user, cwd="/")

    def _wait_until_ready(self) -> None:
        ask = [str(self._binaries / "pg_isready"), "-q", "-t", "1", "-h", "127.0.0.1", "-p", str(self.port)]
        for _ in range(round(START_S / PAUSE_S)):
            if subprocess.run(ask, check=False, cwd="/").returncode == 0:
                return
            if self.process.poll() is not None:
                break
            time.sleep(PAUSE_S)
        raise ConfigError(f"Postgres did not start; see {self._folder.parent / 'postgres.log'}.")


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, newest version first; None where Postgres is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    candidates = [*debian, *([Path(on_path).parent] if on_path else [])]
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


@contextmanager
def private_postgres(folder: Path) -> Iterator[PrivatePostgres]:
    """Started, and stopped at the end. Raises ConfigError where there are no binaries."""
    binaries = find_binaries()
    if binaries is None:
        raise ConfigError("Postgres is not installed; on Debian: apt-get install postgresql.")
    server = PrivatePostgres(folder, binaries)
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
