"""What happens to work on Ray when a process, a disk or a node fails: shards that are finished stay, and the rest is
made with the same bits, there or on another engine."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("ray")

from tarot.workers import LOCAL, Ray, Threads
from tests.tarot.workers import work

pytestmark = [pytest.mark.slow, pytest.mark.ray]
ROOT = Path(__file__).parents[2]
DRIVER = """
import sys
from pathlib import Path
from tarot.workers import Ray
from tests.tarot.workers import work
with Ray(workers=2) as engine:
    work.build(Path(sys.argv[1]), engine, sys.argv[2])
"""


def marked(mark: str) -> list[int]:
    """Processes that have this in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def is_worker(pid: int) -> bool:
    try:
        return b"_Process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def stamps(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.rglob("0*.safetensors")}


@pytest.mark.parametrize(("how", "resumed"), [(signal.SIGINT, LOCAL), (signal.SIGKILL, Threads(2))], ids=repr)
def test_a_run_that_was_ended_leaves_no_process_and_goes_on_elsewhere(ray_home, tmp_path, how, resumed):
    expected = work.build(tmp_path / "whole", LOCAL)
    folder, mark = tmp_path / "stores", f"TAROT_TEST={tmp_path}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TAROT_TEST": str(tmp_path)}
    heeding = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler){DRIVER}"
    driver = subprocess.Popen(
        [sys.executable, "-c", heeding, str(folder), "600"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert until(lambda: (folder / "once").exists() or driver.poll() is not None, 300), driver.stderr
    assert until(lambda: len(stamps(folder)) >= 7, 60)
    time.sleep(1)
    kept = stamps(folder)
    began = time.monotonic()
    driver.send_signal(how)
    driver.wait(timeout=60)
    # of a driver that could end nothing itself, Ray's workers go, and what Ray is made of in its own time
    ours = how == signal.SIGINT
    gone = until(lambda: not [pid for pid in marked(mark) if ours or is_worker(pid)], 60)
    seconds = time.monotonic() - began
    print(f"{how.name}: gone after {seconds:.1f} s; {len(kept)} shards kept")
    left = marked(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)  # then what takes a second of a core takes many
    assert gone and (seconds < (20 if busy else 10) or not ours), left
    assert work.build(folder, resumed) == expected
    assert {name: stamp for name, stamp in stamps(folder).items() if name in kept} == kept, "made again"


def test_a_full_disk_of_a_worker_is_said_and_what_was_finished_is_kept(ray_home, tmp_path):
    expected = work.build(tmp_path / "whole", LOCAL)
    folder = tmp_path / "stores"
    with Ray(workers=2) as engine:
        with pytest.raises(OSError, match=r"No space left on device; .*s1 is not finished") as caught:
            work.build(folder, engine, "full")
        assert caught.value.errno == errno.ENOSPC
        kept = stamps(folder)
        assert len(kept) >= 6 + 2
        assert work.build(folder, engine) == expected
    assert {name: stamp for name, stamp in stamps(folder).items() if name in kept} == kept
    assert not list(folder.rglob(".*.part"))


@pytest.fixture
def cluster(ray_home):
    """Two nodes of one core each beside the one that we are on."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


def test_two_nodes_and_one_that_goes(cluster, tmp_path):
    expected = work.build(tmp_path / "whole", LOCAL)
    nodes = {node.node_id: node for node in cluster.worker_nodes}
    with Ray(workers=2, address=cluster.address) as engine:
        assert work.build(tmp_path / "both", engine) == expected
        folder, went = tmp_path / "stores", []

        def remove():
            if until(lambda: (folder / "once").exists() and (folder / "once").read_text(), 300):
                went.append((folder / "once").read_text())
                cluster.remove_node(nodes[went[0]], allow_graceful=False)

        thread = threading.Thread(target=remove)
        thread.start()
        assert work.build(folder, engine, "600") == expected
        thread.join()
    assert went and went[0] in nodes


def test_an_item_that_kills_its_workers_is_given_up_and_a_ray_that_was_there_stays(ray_home):
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        with Ray(workers=1, retries=1) as engine:
            with pytest.raises(ChildProcessError, match="2 workers have died with the same part of the work"):
                list(engine.map(work.dies, range(1)))
            assert list(engine.map(work.refuses, range(2))) == [0, 1], "the engine goes on"
        assert ray.is_initialized()
    finally:
        ray.shutdown()
