"""An end that was asked for: SIGTERM or Ctrl-C ends Spark's jobs, then the Python code that waits for them.

A signal that struck while Python waits for the JVM would leave an answer nobody reads, and the next call would take
it for its own. So Spark's jobs are cancelled first, by a thread of their own, and Python is interrupted as soon as it
does not wait for the JVM, or has waited too long.
"""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from pyspark import SparkContext

_SOON = 0.2  # seconds until the next look at what the main thread does
_AGAIN = 2.0  # seconds after which an interruption is repeated: it may have got lost in a finalizer
_PATIENCE = 8.0  # seconds that an answer of the JVM is waited for


class StopAskedError(BaseException):
    """The run was asked to end; no `except Exception` on the way holds it up."""


class Stopping:
    """Listens for SIGTERM, and once Spark runs for Ctrl-C, within a with-block; `asked` says what came."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self._context: SparkContext | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._deadline = 0.0

    def __enter__(self) -> "Stopping":
        self._listen(signal.SIGTERM)
        return self

    def __exit__(self, *_: object) -> None:
        self.over()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def watch(self, context: SparkContext) -> None:
        """Cancel the jobs of this context before the end, and take Ctrl-C over from PySpark."""
        self._context = context
        self._listen(signal.SIGINT)

    def over(self) -> None:
        """Interrupt nothing any more: the end is being made."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _listen(self, number: signal.Signals) -> None:
        self._before.setdefault(number, signal.signal(number, self._ask))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is None:
            self.asked = "terminated by SIGTERM" if number == signal.SIGTERM else "interrupted"
            self._deadline = time.monotonic() + _PATIENCE
            self._before.setdefault(signal.SIGALRM, signal.signal(signal.SIGALRM, self._look))
            self._look(number, frame)

    def _look(self, _: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, _SOON)
        if self._context is not None:
            threading.Thread(target=_cancel, args=(self._context,), daemon=True).start()
        if time.monotonic() > self._deadline or not _waits_for_jvm(frame):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
            raise StopAskedError(self.asked)


def _cancel(context: SparkContext) -> None:
    with suppress(Exception):  # the JVM may be gone already
        context.cancelAllJobs()


def _waits_for_jvm(frame: FrameType | None) -> bool:
    while frame is not None:
        if "/py4j/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def within(seconds: float, work: Callable[[], None]) -> bool:
    """Do work in a thread of its own, which has its own line to the JVM; return whether it ended in time.

    >>> within(5, lambda: None), within(0.01, lambda: time.sleep(0.5))
    (True, False)
    """
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
