"""What a person, or a collector of logs, reads on stderr: words, or one JSON object a line."""

import datetime as dt
import io
import json
import sys
from typing import IO, Any, cast

from rich.console import Console

from recsys_spark.redaction import Secrets


class Log:
    """The words of a run, without its secrets; `stage` and `run_id` are those of the moment.

    >>> log = Log("ingest", as_json=True)
    >>> log.run_id = "night-1"
    >>> line = log.line("ingest: no new files", "info")
    >>> [json.loads(line)[name] for name in ("run_id", "job", "stage", "level", "message")]
    ['night-1', 'ingest', None, 'info', 'ingest: no new files']
    """

    def __init__(self, job: str, as_json: bool = False) -> None:
        self.job = job
        self.as_json = as_json
        self.run_id: str | None = None
        self.stage: str | None = None
        self.secrets = Secrets()
        self.level = "info"
        if as_json:
            self.console = Console(
                file=cast("IO[str]", _Lines(self)), width=120, force_terminal=False, color_system=None
            )
        else:
            self.console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)

    def say(self, text: str, level: str = "info", style: str | None = None) -> None:
        """Write a text; in JSON, with its level: debug, info, warning or error."""
        self.level = level
        try:
            self.console.print(self.secrets.redacted(text), style=style, highlight=False, markup=False, soft_wrap=True)
        finally:
            self.level = "info"

    def line(self, message: str, level: str) -> str:
        """Return the JSON object of a message."""
        entry: dict[str, Any] = {
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "run_id": self.run_id,
            "job": self.job,
            "stage": self.stage,
            "message": message,
        }
        return json.dumps(entry, ensure_ascii=False)


class _Lines(io.TextIOBase):
    """Makes a JSON object of what the console prints at once: a sentence, or a whole table."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def write(self, text: str) -> int:
        if text.strip():
            print(self.log.line(text.strip("\n"), self.log.level), file=sys.stderr, flush=True)
        return len(text)
