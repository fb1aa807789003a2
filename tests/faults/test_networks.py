"""Ray on machines that only a network joins: namespaces of this one, each with an address of its own on a bridge. One
link is cut in the middle of a map."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("ray")

from tarot.workers import LOCAL
from tests.tarot.workers import work

pytestmark = [pytest.mark.slow, pytest.mark.ray]
ROOT = Path(__file__).parents[2]
PORT = 6399
DRIVER = """
import sys
from pathlib import Path
import ray
from tarot.workers import Ray
from tests.tarot.workers import work
folder, address = Path(sys.argv[1]), sys.argv[2]
with Ray(workers=2, address=address) as engine:
    work.build(folder / "both", engine)
    (folder / "nodes").write_text("\\n".join(f"{n['NodeID']} {n['NodeManagerAddress']}" for n in ray.nodes()))
    work.build(folder / "cut", engine, "600")
"""
# how soon Ray takes a silent node for dead: by default within a minute
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Hosts:
    """Namespaces `name`0, `name`1, ..., the first with the bridge that joins the others to it."""

    name: str
    count: int
    environment: dict[str, str]

    def host(self, number: int) -> str:
        return f"{self.name}{number}"

    def address(self, number: int) -> str:
        return f"10.231.77.{number + 1}"

    def make(self) -> None:
        hub = self.host(0)
        try:
            ip("netns", "add", hub)
            ip("-n", hub, "link", "add", "bridge0", "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"networks may not be made here: {error.stderr.strip()}")
        for number in range(1, self.count):
            ip("netns", "add", self.host(number))
            ends = ["type", "veth", "peer", "name", "wire0", "netns", self.host(number)]
            ip("-n", hub, "link", "add", f"to{number}", *ends)
            ip("-n", hub, "link", "set", "dev", f"to{number}", "master", "bridge0", "up")
        for number in range(self.count):
            at, end = self.host(number), "wire0" if number else "bridge0"
            ip("-n", at, "address", "add", f"{self.address(number)}/24", "dev", end)
            for device in ("lo", end):
                ip("-n", at, "link", "set", "dev", device, "up")
            ip("-n", at, "route", "add", "default", "dev", end)  # by which Ray finds its own address

    def started(self, number: int, *command: str, **options: object) -> subprocess.Popen[str]:
        within = ["ip", "netns", "exec", self.host(number), *command]
        return subprocess.Popen(within, env=self.environment, text=True, **options)  # type: ignore[call-overload,no-any-return]

    def ray(self, number: int, *options: str) -> None:
        """Starts Ray there, with one core but on the first."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--node-ip-address={self.address(number)}"]
        process = self.started(
            number, *command, "--disable-usage-stats", *options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said

    def cut(self, number: int) -> None:
        ip("-n", self.host(number), "link", "set", "dev", "wire0", "down")

    def remove(self) -> None:
        for number in range(self.count):
            with contextlib.suppress(subprocess.CalledProcessError):
                self._end(self.host(number))
                ip("netns", "delete", self.host(number))

    def _end(self, host: str) -> None:
        """The processes in it."""
        while True:
            found = subprocess.run(["ip", "netns", "pids", host], check=True, capture_output=True, text=True)
            if not found.stdout.split():
                return
            for pid in found.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.2)


@pytest.fixture
def hosts(ray_home: Path) -> Iterator[Hosts]:
    """The first with Ray's head and no core for workers, two others with one each."""
    if shutil.which("ip") is None:
        pytest.skip("there is no command ip")
    environment = {**os.environ, **HEALTH, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    made = Hosts(f"tarot{os.getpid()}-", 3, environment)
    try:
        made.make()
        head = f"{made.address(0)}:{PORT}"
        made.ray(0, "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")
        for number in (1, 2):
            made.ray(number, f"--address={head}", "--num-cpus=1")
        yield made
    finally:
        made.remove()


def test_two_machines_and_a_link_that_is_cut(hosts: Hosts, tmp_path: Path) -> None:
    expected = work.build(tmp_path / "whole", LOCAL)
    (tmp_path / "cut").mkdir()
    head = f"{hosts.address(0)}:{PORT}"
    driver = hosts.started(
        0, sys.executable, "-c", DRIVER, str(tmp_path), head, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    once, until = tmp_path / "cut" / "once", time.monotonic() + 400
    while not (once.exists() and once.read_text()):
        assert driver.poll() is None and time.monotonic() < until, driver.communicate(timeout=5)[0]
        time.sleep(0.2)
    assert work.content(tmp_path / "both") == expected
    addresses = dict(line.split() for line in (tmp_path / "nodes").read_text().splitlines())
    assert len(addresses) == 3
    last = int(addresses[once.read_text()].rpartition(".")[2]) - 1  # who is at the part that takes ten minutes
    hosts.cut(last)
    began = time.monotonic()
    said, _ = driver.communicate(timeout=400)
    print(f"host {last} was cut off; done {time.monotonic() - began:.0f} s later\n{said}")
    assert driver.returncode == 0, said
    assert work.content(tmp_path / "cut") == expected
