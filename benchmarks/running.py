"""Jobs of the product in this process, with what they counted and measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recsys_spark import runs
from recsys_spark.runs import Option, Run, Stage


def setting(overrides: Iterable[str]) -> list[str]:
    """Return a job's arguments that replace values of its configuration, `key=value` each."""
    return [word for each in overrides for word in ("--set", each)]


def run_stages(
    name: str, stages: Mapping[str, Stage], argv: Sequence[str], options: Mapping[str, Option] | None = None
) -> dict[str, Any]:
    """Run stages with a job's arguments; return its `counts` and `metrics`. An error ends the benchmark."""
    kept: dict[str, Any] = {}

    def keep(run: Run) -> None:
        kept.update({"counts": dict(run.counts), "metrics": dict(run.metrics)})

    if code := runs.main(name, stages, "", argv, finish=keep, options=options):
        raise SystemExit(code)
    return kept
