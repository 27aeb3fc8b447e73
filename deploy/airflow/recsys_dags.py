"""The night and the week as DAGs for Airflow: one task a job, tried again or not by the job's exit code.

For Airflow 3.3, the newest that installs on the Python 3.11 of the jobs: version 2 gets no more fixes, and 3 has the
retries, params and logical dates that are used here. The jobs do not run in Airflow's environment but in one of their
own, by a subprocess, so that neither's packages bind the other's. The scheduler's environment says where they are:

    RECSYS_HOME       the project's folder (else the one that this file lies in)
    RECSYS_LAUNCHER   what runs a job (else .venv/bin/python), such as
                      `.venv/bin/spark-submit --properties-file conf/spark/yarn.conf …`
    RECSYS_CONFIG     the configuration (else conf/completejourney.yaml)
    RECSYS_STATE      a folder that stays, for the settings that the week finds (else data/nights)
    RECSYS_SCHEDULE   cron expression of the night (else half past three, UTC)
    RECSYS_RETRY_SECONDS  pause before another try (else 300)
    RECSYS_TASK_SECONDS   what one try of a job may take (else 36000, ten hours); it is ended then, and tried again
    RECSYS_RUN_SECONDS    what a night or a week may take, with all tries (else 72000, twenty hours); it has failed then
"""

import datetime as dt
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.sdk import DAG, BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

HOME = Path(os.environ.get("RECSYS_HOME", Path(__file__).parents[2]))
LAUNCHER = shlex.split(os.environ.get("RECSYS_LAUNCHER", str(HOME / ".venv/bin/python")))

# Exit codes that another try cannot change: usage, data, a fault of the program, configuration. All others are tried
# again: 69 and 75 say so, and a job that was killed has none of its own (137) and goes on where it stopped.
FINAL = {64, 65, 70, 78}

_log = logging.getLogger(__name__)


class JobOperator(BaseOperator):  # type: ignore[misc]  # where mypy runs, Airflow is not
    """Runs a job and returns its summary, which Airflow keeps as the task's XCom.

    at: whether as_of is the moment that models are `judged` from, or `now`. Both follow from the DAG run alone, as does
    the run id: a try that comes later asks for the very same.
    """

    process: subprocess.Popen[str] | None = None

    def __init__(self, *, job: str, options: list[str], at: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.job, self.options, self.at = job, options, at

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the job in a process group of its own; its exit code decides whether it is tried again."""
        dag_run, params = context["dag_run"], context["params"]
        run_id = re.sub(r"[^A-Za-z0-9_.-]", "-", dag_run.run_id)[:128]
        as_of = moment(dag_run, params) - dt.timedelta(days=params["judged_days"] if self.at == "judged" else 0)
        tuned = HOME / os.environ.get("RECSYS_STATE", "data/nights") / "tuned" / Path(params["config"]).stem
        found = newest(tuned, dag_run)
        configs = [f"--config={path}" for path in (params["config"], found) if path]
        own = [option.format(tuned=tuned) for option in self.options]
        command = [*LAUNCHER, f"jobs/{self.job}.py", *configs, "--run-id", run_id, "--as-of", as_of.isoformat(), *own]
        _log.info("%s", shlex.join(command))
        # Airflow's own variables hold its connections and keys: none of the job's business.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
        with subprocess.Popen(
            command, cwd=HOME, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as self.process:
            try:
                output, _ = self.process.communicate()  # stderr goes on to the task's log as it comes
            except BaseException:
                self.on_kill()
                raise
        summary = _last_object(output)
        _log.info("%s", json.dumps(summary, indent=1, ensure_ascii=False))
        code = self.process.returncode
        if code == 0:
            return summary
        words = f"{self.job} ended with {code}: {summary.get('error', 'it left no summary; its log says more')}"
        raise (AirflowFailException if code in FINAL else AirflowException)(words)

    def on_kill(self) -> None:
        """Ask the job's process group to end, and kill what is left of it after half a minute.

        All that Airflow does at SIGTERM is to call this, within `execute`, which goes on with the job's exit code. A
        worker that waits for less than the job needs ends without it: the job has been asked, and ends by itself.
        """
        if self.process is None or self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):  # the group is gone, as it should be
            os.killpg(self.process.pid, signal.SIGTERM)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                self.process.poll()  # a child that nobody has asked for counts as there
                os.killpg(self.process.pid, 0)
                time.sleep(0.1)
            os.killpg(self.process.pid, signal.SIGKILL)


def moment(dag_run: Any, params: dict[str, Any]) -> dt.datetime:
    """Return the moment up to which events are known: the param as_of, else the last midnight before the DAG run."""
    if params["as_of"]:
        given = dt.datetime.fromisoformat(params["as_of"])
        return given if given.tzinfo else given.replace(tzinfo=dt.UTC)
    started: dt.datetime = dag_run.logical_date or dag_run.run_after
    return started.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def newest(tuned: Path, dag_run: Any) -> Path | None:
    """Return the file of settings that `recsys_week` wrote last before the DAG run; the gate judges it as any other."""
    begun = (dag_run.logical_date or dag_run.run_after).timestamp()
    files = [path for path in tuned.glob("*.yaml") if path.stat().st_mtime < begun]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def has_champion(ti: Any) -> bool:
    """Return whether there may be a model to serve: False where the gate has just said that there is none."""
    gate = ti.xcom_pull(task_ids="evaluate")["counts"].get("gate")
    return gate is None or gate["champion"] is not None


def _last_object(output: str) -> dict[str, Any]:
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def _task(name: str, job: str, *options: str, at: str = "judged") -> Any:
    return JobOperator(task_id=name, job=job, options=list(options), at=at)


def _seconds(variable: str, otherwise: int) -> dt.timedelta:
    return dt.timedelta(seconds=float(os.environ.get(variable, otherwise)))


def _dag(name: str, schedule: str, about: str) -> Any:
    return DAG(
        name,
        description=about,
        schedule=schedule,
        start_date=dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=_seconds("RECSYS_RUN_SECONDS", 72000),
        default_args={
            "retries": 3,
            "retry_delay": _seconds("RECSYS_RETRY_SECONDS", 300),
            "execution_timeout": _seconds("RECSYS_TASK_SECONDS", 36000),
        },
        params={
            "config": Param(os.environ.get("RECSYS_CONFIG", "conf/completejourney.yaml"), type="string"),
            "as_of": Param(None, type=["null", "string"], description="Events before it are known (ISO 8601, UTC)"),
            "judged_days": Param(28, type="integer", minimum=0, description="How long before it models are judged"),
        },
    )


# Train as of some weeks ago, judge by what came since, and serve the champion with all that is known tonight.
with _dag("recsys_night", os.environ.get("RECSYS_SCHEDULE", "30 3 * * *"), "From the log to the champion's lists"):
    (
        _task("ingest", "ingest")
        >> _task("build_features", "build_features")
        >> _task("train_als", "train_als")
        >> _task("score_topk", "score_topk")
        >> _task("evaluate", "evaluate", "--promote")
        >> ShortCircuitOperator(task_id="has_champion", python_callable=has_champion)
        >> _task("build_features_now", "build_features", at="now")
        >> _task("serve", "score_topk", "--model", "champion", at="now")
    )

# The search looks at windows before the judged weeks only, so the nights that use what it finds judge it by other data.
with _dag("recsys_week", "0 1 * * 0", "Settings found on windows of the past, for the nights to come"):
    _task("ingest", "ingest") >> _task("build_features", "build_features") >> _task("tune", "tune", "--out", "{tuned}")
