"""Durable Objects themselves: workerd, Cloudflare's runtime, with its rooms on the same disk.

It is looked for in the folder that ``PARTYROOM_NODE_MODULES`` names, then on the ``PATH``: ``npm install workerd`` puts it
into ``node_modules/.bin``. Its objects are driven
from inside, by ``worker.js``, so that what is measured holds one HTTP request for hundreds or thousands of steps.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep, time
from typing import final
from urllib.request import urlopen

from benchmarks.measure import Sample

__all__ = ["Workerd", "find_workerd", "measured", "resident_bytes", "workerd_state"]

CONFIG = """
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .worker), (name = "disk", disk = (path = "state", writable = true))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const worker :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2025-09-01",
  durableObjectNamespaces = [(className = "Box", uniqueKey = "partyroom", enableSql = true)],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [(name = "BOX", durableObjectNamespace = "Box")],
);
"""

BATCH = 50
"""So many objects are touched in one request: workerd limits what one request may do."""


def find_workerd() -> str | None:
    """Give the program's path, if it is installed; its control channel needs POSIX."""
    if sys.platform == "win32":
        return None
    modules = os.environ.get("PARTYROOM_NODE_MODULES")
    return (shutil.which("workerd", path=f"{modules}/.bin") if modules else None) or shutil.which("workerd")


def resident_bytes(pid: int) -> int:
    """Give the memory that a process has in use, as the system counts it; POSIX only."""
    command = ["ps", "-o", "rss=", "-p", str(pid)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024


@contextmanager
def workerd_state() -> Generator[Path]:
    """Give a folder in which several runs of workerd, one after another, find the same objects."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir()
        (folder / "config.capnp").write_text(CONFIG)
        shutil.copy(Path(__file__).parent / "worker.js", folder)
        yield folder


@final
class Workerd:
    """One run of workerd, from entering to leaving."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder

    def __enter__(self) -> Workerd:
        told, tell = os.pipe()
        command = [self._program, "serve", str(self._folder / "config.capnp"), f"--control-fd={tell}"]
        self._process = subprocess.Popen(command, pass_fds=[tell], cwd=self._folder, stderr=subprocess.DEVNULL)
        os.close(tell)
        with os.fdopen(told) as control:
            self._port: int = json.loads(control.readline())["port"]
        self.ask("warm")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def ask(self, verb: str, first: int = 0, count: int = 0, due: int = 0) -> int:
        """Have something done; give how many alarms have rung so far."""
        address = f"http://127.0.0.1:{self._port}/{verb}?first={first}&count={count}&due={due}"
        with urlopen(address, timeout=120) as reply:
            return int(reply.read())

    def seconds(self, verb: str, count: int) -> float:
        """Give how long so many steps in one object take."""
        begin = perf_counter()
        self.ask(verb, 0, count)
        return perf_counter() - begin

    def each(self, verb: str, count: int, due: int = 0) -> float:
        """Give how long one step in each of so many objects takes."""
        begin = perf_counter()
        for first in range(0, count, BATCH):
            self.ask(verb, first, min(BATCH, count - first), due)
        return perf_counter() - begin

    def resident(self) -> int:
        """Give its memory, in bytes."""
        return resident_bytes(self._process.pid)

    def ring_all(self, count: int, due: float) -> float:
        """Give the seconds from that time until so many alarms have rung."""
        while time() < due or self.ask("rung") < count:
            sleep(0.002)
        return time() - due


def measured(ours: float, measure: Callable[[str, Path], float]) -> Sample:
    """Give a sample whose figure beside ours is measured on workerd, if that is installed."""
    program = find_workerd()
    if program is None:
        return Sample(ours, missing="workerd is neither in PARTYROOM_NODE_MODULES nor on the PATH")
    with workerd_state() as folder:
        return Sample(ours, measure(program, folder))
