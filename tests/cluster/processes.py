"""The processes of this machine, as tests look for those that they started, and kill them."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process: its number, that of its parent, its command line with blanks between the words."""

    pid: int
    parent: int
    command: str


def running() -> Iterator[Process]:
    """Yield the processes of this machine."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # it has ended meanwhile
            (parent,) = re.findall(r"^PPid:\t(\d+)$", status.read_text(), flags=re.MULTILINE)
            command = status.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield Process(int(status.parent.name), int(parent), command)


def at_work(pid: int) -> bool:
    """Whether a process has not ended; of one that has, and that nobody asked for, only the number is there."""
    return any(process.pid == pid and process.command for process in running())


def children(parent: int, words: str) -> list[int]:
    """Return the children of a process that have words in their command lines."""
    return [process.pid for process in running() if process.parent == parent and words in process.command]


def executors(workers: list[int]) -> list[int]:
    """Return the executors that workers of a standalone cluster have."""
    return [pid for worker in workers for pid in children(worker, "CoarseGrainedExecutorBackend")]


def kill_executor(worker: int) -> None:
    """Kill the one executor of a worker."""
    (executor,) = executors([worker])
    os.kill(executor, signal.SIGKILL)
