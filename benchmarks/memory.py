"""Peak memory of a process and its children, by what they are, sampled while work runs."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Yield a dict that holds, after the with-block, peaks in MB: driver, worker (the largest), jvm and total.

    Memory is proportional set size: a page that n processes share counts as 1/n in each. So a mapped block in
    the page cache is counted once.
    """
    peaks = {"driver": 0.0, "worker": 0.0, "jvm": 0.0, "total": 0.0}
    ended = threading.Event()

    def watch() -> None:
        took = 0.0
        # The kernel walks all pages of a JVM to answer: no more than a twentieth of one core is spent on asking.
        while not ended.wait(max(0.1, 20 * took)):
            began = time.perf_counter()
            now = _now(os.getpid())
            took = time.perf_counter() - began
            for name, size in now.items():
                peaks[name] = max(peaks[name], size)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()


def _now(root: int) -> dict[str, float]:
    sizes = {pid: _pss(pid) for pid in [root, *_descendants(root)]}
    jvms = {pid for pid in sizes if _name(pid) == "java"}
    workers = [size for pid, size in sizes.items() if pid != root and pid not in jvms]
    return {
        "driver": sizes[root],
        "worker": max(workers, default=0.0),
        "jvm": sum(sizes[pid] for pid in jvms),
        "total": sum(sizes.values()),
    }


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, left = [], [root]
    while left:
        own = children.get(left.pop(), [])
        found += own
        left += own
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _pss(pid: int) -> float:
    """Return the proportional set size of a process in MB; 0 where it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
