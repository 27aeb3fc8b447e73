"""Raw files to bronze.events: each line once, however often the job runs."""

import datetime as dt
import re

from recsys_spark import files, sources
from recsys_spark.errors import TryAgainError
from recsys_spark.runs import Run
from recsys_spark.runs import main as run_job
from recsys_spark.stages.events import check_as_of
from recsys_spark.transforms import events

_TRIES = 5


def ingest(run: Run) -> None:
    """Append the lines of files that bronze.events does not have; a file that changed since replaces its lines.

    Lines of files that a Delta table had and has no more are taken away.
    """
    for _ in range(_TRIES):
        if _ingested(run):
            return
    raise TryAgainError(f"bronze.events: another ingestion came first {_TRIES} times; run the job again")


def _ingested(run: Run) -> bool:
    """Append what is new; return whether it is there now, and not another ingestion's rows instead."""
    source, holdout = run.config.source, run.config.holdout
    delivered = {"source": source.path}
    if holdout is not None and holdout.path is not None:
        delivered["holdout"] = holdout.path
    known, version = run.tables.ingested_files()
    now = dt.datetime.now(dt.UTC)
    raw, n_files, changed, gone = None, 0, [], []
    for part, paths in delivered.items():
        listed = files.list_files(run.spark, source, paths)
        fresh = sorted(url for url, modified in listed.items() if known.get((part, url)) != modified)
        changed += [url for url in fresh if (part, url) in known]
        if source.format == "delta":
            # A table's files come and go: compaction writes the same rows anew, deletion leaves some out.
            mine = re.compile(files.pattern(run.spark, paths))
            gone += [url for own, url in known if own == part and url not in listed and mine.match(url)]
        n_files += len(fresh)
        if fresh:
            frame = sources.read_raw(run.spark, source, fresh, part, now)
            raw = frame if raw is None else raw.unionByName(frame, allowMissingColumns=True)
    if raw is None and gone:
        raw = run.tables.read("bronze.events", version).where("false")
    if raw is None:
        run.outputs["bronze.events"] = run.tables.version("bronze.events")
        run.say("ingest: no new files")
        return True
    if not known:
        check_as_of(run, events.parse(raw, source, run.config.features.known_events()))
    note = {"run_id": run.run_id, "ingested_at": now.isoformat()}
    written = run.tables.write_bronze(raw, changed + gone, note, version)
    if written is None:
        return False
    run.outputs["bronze.events"] = written
    run.say(f"ingest: {n_files} new files" + (f", {len(changed)} of them in place of older ones" if changed else "")
            + (f"; {len(gone)} taken away, which their table has no more" if gone else ""))  # fmt: skip
    return True


def main() -> int:
    """Run the job from the command line."""
    return run_job("ingest", {"ingest": ingest}, __doc__ or "")
