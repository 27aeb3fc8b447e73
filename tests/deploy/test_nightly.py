"""deploy/cron/nightly.sh with a stand-in for the jobs: what it asks for, what it tries again, and how it ends."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "deploy/cron/nightly.sh"

# Notes its arguments, and ends with the next of the codes that are planned for the job, or well.
STAND_IN = """#!/usr/bin/env bash
echo "$*" >>calls
plan=plan-$(basename "$1" .py)
code=0
if [ -s "$plan" ]; then code=$(head -n 1 "$plan"); sed -i 1d "$plan"; fi
echo "progress"
echo "{\\"job\\": \\"$1\\", \\"exit_code\\": $code, \\"counts\\": {\\"gate\\": {\\"champion\\": ${CHAMPION:-\\"a\\"}}}}"
exit "$code"
"""


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
        )  # fmt: skip

    def run(self, **variables: str) -> tuple[int, str, str]:
        process = self.start(**variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

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


@pytest.mark.parametrize("code", [64, 65, 70, 78])
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
    found = night.folder / "data/nights/tuned/shop/week-2024-03-31.yaml"
    found.parent.mkdir(parents=True)
    found.touch()
    for day in ("2024-03-31", "2024-04-02", "2024-04-06", "2024-04-08"):
        (night.folder / "calls").write_text("")
        assert night.run(RECSYS_AS_OF=day)[0] == 0
        with_it = [f"--config {found.relative_to(night.folder)} --run-id night-" in call for call in night.calls()]
        assert with_it == [day < "2024-04-07"] * 3


def test_two_nights_of_a_configuration_do_not_run_at_once(night: Night) -> None:
    (night.folder / "job").write_text("#!/bin/sh\ntouch began\nwhile [ ! -e go ]; do sleep 0.05; done\necho {}\n")
    first = night.start()
    while not (night.folder / "began").exists():
        assert first.poll() is None
        time.sleep(0.02)
    assert night.run()[0] == 75
    (night.folder / "go").touch()
    assert first.wait(timeout=60) == 0
    assert night.run()[0] == 0  # the lock went with the first
