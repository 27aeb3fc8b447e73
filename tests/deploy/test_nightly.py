"""deploy/cron/nightly.sh with a stand-in for the jobs: what it asks for, what it tries again, and how it ends."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "deploy/cron/nightly.sh"
CRONTAB = [line.removeprefix("#   ") for line in SCRIPT.read_text().splitlines() if line.startswith("#   ")]

# Notes its arguments, and ends with the next of the codes that are planned for the job, or well. A search that
# ends well leaves settings, by its run id in the folder that its last argument names.
STAND_IN = """#!/usr/bin/env bash
echo "$*" >>calls
job=$(basename "$1" .py)
code=0
if [ -s "plan-$job" ]; then code=$(head -n 1 "plan-$job"); sed -i 1d "plan-$job"; fi
if [ "$job $code" = "tune 0" ]; then mkdir -p "${!#}"; touch "${!#}/$5.yaml"; fi
echo "progress"
echo "{\\"job\\": \\"$1\\", \\"exit_code\\": $code, \\"counts\\": {\\"gate\\": {\\"champion\\": ${CHAMPION:-\\"a\\"}}}}"
exit "$code"
"""


# Works until it is told to end, which takes it a moment and has a code of its own.
PATIENT = """#!/usr/bin/env bash
echo "$*" >>calls
trap 'sleep 0.3; echo "{\\"exit_code\\": 75}"; exit 75' TERM
echo $$ >working
while :; do sleep 0.05; done
"""


def heard() -> None:
    """Tests in the background of a shell ignore Ctrl-C, those by nohup SIGHUP, and what they start would, too."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@dataclass(frozen=True)
class Night:
    """A folder with the script where it expects to lie, and a stand-in for the jobs."""

    folder: Path

    def plan(self, job: str, *codes: int) -> None:
        (self.folder / f"plan-{job}").write_text("".join(f"{code}\n" for code in codes))

    def start(self, **variables: str) -> subprocess.Popen[str]:
        own = {
            "RECSYS_LAUNCHER": str(self.folder / "job"),
            "RECSYS_CONFIG": "conf/shop.yaml",
            "RECSYS_AS_OF": "2024-03-30",  # a Saturday
            "RECSYS_PAUSE": "0",
        }
        return subprocess.Popen(
            [str(self.folder / "deploy/cron/nightly.sh")],
            env={**os.environ, **own, **variables}, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=heard,
        )  # fmt: skip

    def run(self, **variables: str) -> tuple[int, str, str]:
        process = self.start(**variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def wait_for(self, file: str, process: subprocess.Popen[str]) -> str:
        while not ((self.folder / file).exists() and (found := (self.folder / file).read_text())):
            assert process.poll() is None
            time.sleep(0.02)
        return found

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def night(tmp_path: Path) -> Night:
    (tmp_path / "deploy/cron").mkdir(parents=True)
    (tmp_path / "deploy/cron/nightly.sh").write_bytes(SCRIPT.read_bytes())
    (tmp_path / "job").write_text(STAND_IN)
    for program in ("job", "deploy/cron/nightly.sh"):
        (tmp_path / program).chmod(0o755)
    return Night(tmp_path)


def test_a_night_judges_by_the_last_weeks_and_serves_the_champion_with_all_that_is_known(night: Night) -> None:
    code, out, _ = night.run()
    assert code == 0
    assert night.calls() == [
        "jobs/pipeline.py --config conf/shop.yaml --run-id night-2024-03-30 --as-of 2024-03-02 --promote",
        "jobs/build_features.py --config conf/shop.yaml --run-id night-2024-03-30 --as-of 2024-03-30",
        "jobs/score_topk.py --config conf/shop.yaml --run-id night-2024-03-30 --as-of 2024-03-30 --model champion",
    ]
    assert len(out.splitlines()) == 3 and all(line.startswith('{"job"') for line in out.splitlines())


@pytest.mark.parametrize("code", [75, 69, 137, 1])
def test_what_another_try_may_help_is_tried_again_with_the_same_run_id(night: Night, code: int) -> None:
    night.plan("pipeline", code, code)
    assert night.run()[0] == 0
    assert len(night.calls()) == 5 and len(set(night.calls()[:3])) == 1


@pytest.mark.parametrize("code", [64, 65, 70, 78, 126, 127])
def test_what_no_other_try_can_help_ends_the_night_at_once(night: Night, code: int) -> None:
    night.plan("build_features", code)
    ended, _, err = night.run()
    assert ended == code and len(night.calls()) == 2
    assert f"build_features ended with {code} after 1 tries" in err


def test_tries_are_limited_and_the_last_code_is_the_scripts(night: Night) -> None:
    night.plan("pipeline", *[75] * 9)
    ended, _, err = night.run(RECSYS_TRIES="3")
    assert ended == 75 and len(night.calls()) == 3
    assert "try 3 follows in 0 s" in err and "try 4" not in err


def test_a_launcher_that_is_not_there_is_not_waited_for(night: Night) -> None:
    ended, _, err = night.run(RECSYS_LAUNCHER="no/python")
    assert ended == 127 and "pipeline ended with 127 after 1 tries" in err


def test_nothing_is_served_before_a_model_was_promoted(night: Night) -> None:
    ended, _, err = night.run(CHAMPION="null")
    assert ended == 0 and len(night.calls()) == 1 and "none is served" in err


def test_on_sundays_settings_are_searched_for_once_and_the_week_uses_them(night: Night) -> None:
    assert night.run(RECSYS_AS_OF="2024-03-31")[0] == 0
    week = "--run-id week-2024-03-31 --as-of 2024-03-03"
    assert night.calls()[:3] == [
        f"jobs/ingest.py --config conf/shop.yaml {week}",
        f"jobs/build_features.py --config conf/shop.yaml {week}",
        f"jobs/tune.py --config conf/shop.yaml {week} --out data/nights/tuned/shop",
    ]
    found = "data/nights/tuned/shop/week-2024-03-31.yaml"
    assert [f"--config {found} --run-id night-" in call for call in night.calls()[3:]] == [True] * 3
    for day in ("2024-03-31", "2024-04-02", "2024-04-06"):
        (night.folder / "calls").write_text("")
        assert night.run(RECSYS_AS_OF=day)[0] == 0
        assert [f"--config {found} --run-id night-" in call for call in night.calls()] == [True] * 3


def settings(night: Night, sunday: str) -> str:
    """Leave the settings of a Sunday's search, and return where."""
    found = Path(f"data/nights/tuned/shop/week-{sunday}.yaml")
    (night.folder / found).parent.mkdir(parents=True, exist_ok=True)
    (night.folder / found).touch()
    return str(found)


def test_a_night_takes_the_last_settings_that_were_found_before_it(night: Night) -> None:
    older, newer = settings(night, "2024-03-03"), settings(night, "2024-03-17")
    settings(night, "2024-03-31")  # after the night
    assert night.run()[0] == 0
    assert all(f"--config {newer} --run-id" in call and older not in call for call in night.calls())


@pytest.mark.parametrize(("job", "code"), [("tune", 78), ("tune", 65), ("build_features", 70), ("ingest", 75)])
def test_a_search_that_fails_does_not_end_the_night(night: Night, job: str, code: int) -> None:
    found = settings(night, "2024-03-24")
    night.plan(job, code)
    ended, _, err = night.run(RECSYS_AS_OF="2024-03-31", RECSYS_TRIES="1")
    assert ended == 0 and f"{job} ended with {code} after 1 tries" in err
    assert "the search for settings failed, the night goes on without it" in err
    searched = [call.split()[0] for call in night.calls() if "--run-id week-" in call]
    assert searched == ["jobs/ingest.py", "jobs/build_features.py", "jobs/tune.py"][: len(searched)]
    assert searched[-1] == f"jobs/{job}.py"
    served = night.calls()[len(searched) :]
    assert len(served) == 3 and all(f"--config {found} --run-id night-" in call for call in served)


@pytest.mark.parametrize("earlier", ["2024-03-24", None])
def test_a_sunday_whose_search_failed_is_gone_on_with_by_the_settings_that_it_began_with(
    night: Night, earlier: str | None
) -> None:
    own = f"--config {settings(night, earlier)} " if earlier else ""
    night.plan("tune", 65)
    night.plan("pipeline", 75)
    assert night.run(RECSYS_AS_OF="2024-03-31", RECSYS_TRIES="1")[0] == 75
    trained = night.calls()[-1]
    assert trained.startswith(f"jobs/pipeline.py --config conf/shop.yaml {own}--run-id night-2024-03-31 ")
    settings(night, "2024-03-31")  # by hand, say
    (night.folder / "calls").write_text("")
    assert night.run(RECSYS_AS_OF="2024-03-31")[0] == 0
    assert night.calls()[0] == trained  # and no search, which would replace the features that it goes on from
    assert [f"{own}--run-id night-2024-03-31 " in call for call in night.calls()] == [True] * 3


@pytest.mark.parametrize("day", ["2024-03-30", "2024-03-31"])  # the second begins with a search
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_job_and_then_the_night_with_its_code(night: Night, number: int, day: str) -> None:
    (night.folder / "job").write_text(PATIENT)
    process = night.start(RECSYS_AS_OF=day)
    job = int(night.wait_for("working", process))
    process.send_signal(number)
    time.sleep(0.1)
    process.send_signal(number)  # while the job comes to its end
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, len(night.calls())) == (75, '{"exit_code": 75}\n', 1)
    assert "told to stop at" in err and "follows" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)


def test_a_signal_between_two_tries_ends_the_night_with_the_code_of_the_first(night: Night) -> None:
    night.plan("pipeline", 69)
    process = night.start(RECSYS_PAUSE="60")
    assert process.stderr is not None and "try 2 follows in 60 s" in process.stderr.readline()
    process.terminate()
    assert process.wait(timeout=20) == 69 and len(night.calls()) == 1
    process.communicate()


def test_nothing_that_outlives_a_killed_night_keeps_its_lock(night: Night) -> None:
    night.plan("pipeline", 75)
    process = night.start(RECSYS_PAUSE="3")
    assert process.stderr is not None and "try 2 follows in 3 s" in process.stderr.readline()
    process.kill()
    process.wait()  # and not `communicate`: its pause is still there
    assert night.run()[0] == 0
    process.communicate()


def test_the_tutorials_crontab_is_that_of_the_script() -> None:
    page = (PROJECT / "docs/tutorial.md").read_text(encoding="utf-8")
    assert "```\n" + "".join(f"{line}\n" for line in CRONTAB) + "```\n" in page


def by_cron(night: Night, *, limit: str = "20h") -> tuple[int, str]:
    """Run the crontab's command as cron does, in this folder; return its exit code, and what would be mailed."""
    *variables, line = CRONTAB
    environment = {**os.environ, "RECSYS_AS_OF": "2024-03-30", "RECSYS_LAUNCHER": str(night.folder / "job")}
    environment |= dict(variable.split("=") for variable in variables) | {"LOG": str(night.folder / "log")}
    command = line.split(maxsplit=5)[-1].replace("/opt/recsys-spark", str(night.folder))
    command = command.replace("=60 20h", f"=1 {limit}")
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def test_cron_mails_how_a_night_failed_and_nothing_of_one_that_ended_well(night: Night) -> None:
    assert by_cron(night) == (0, "")
    assert len((night.folder / "log").read_text().splitlines()) == 3
    night.plan("pipeline", 78)
    ended, mail = by_cron(night)
    assert ended == 0 and '"exit_code": 78' in mail
    assert mail.endswith("night: pipeline ended with 78 after 1 tries\n")


def test_a_night_that_takes_too_long_is_told_to_end_and_mailed(night: Night) -> None:
    (night.folder / "job").write_text(PATIENT)
    _, mail = by_cron(night, limit="1")
    assert mail.endswith('{"exit_code": 75}\nnight: told to stop at pipeline (exit 75)\n')


def test_a_night_that_hangs_is_killed_with_its_job_and_leaves_no_lock(night: Night) -> None:
    whole = (night.folder / "job").read_text()
    (night.folder / "job").write_text("#!/bin/sh\ntrap '' TERM\necho $$ >working\nsleep 30\nsleep 30\n")
    by_cron(night, limit="1")
    job = (night.folder / "working").read_text().strip()
    time.sleep(0.2)
    state = subprocess.run(["ps", "-o", "stat=", "-p", job], capture_output=True, text=True, check=False).stdout
    assert state[:1] in ("", "Z")  # gone, or dead and not yet asked for
    (night.folder / "job").write_text(whole)
    assert night.run()[0] == 0


def test_two_nights_of_a_configuration_do_not_run_at_once(night: Night) -> None:
    (night.folder / "job").write_text("#!/bin/sh\necho >began\nwhile [ ! -e go ]; do sleep 0.05; done\necho {}\n")
    first = night.start()
    night.wait_for("began", first)
    assert night.run()[0] == 75
    (night.folder / "go").touch()
    assert first.wait(timeout=60) == 0
    assert night.run()[0] == 0  # the lock went with the first
