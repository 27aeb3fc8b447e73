"""docs/tutorial.md, command by command, in a folder of its own, on a log with planted tastes as the reader's.

Run are the blocks marked `bash`, in order; `yaml` blocks are written to the file that their first line names. Not run
is the block marked `shell`: it installs what these tests run in.
"""

import json
import os
import random
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pytest
import yaml

from recsys_spark.session import SHORT_LIVED

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
TUTORIAL = (PROJECT / "docs/tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TUTORIAL, flags=re.MULTILINE | re.DOTALL)
END = datetime(2024, 3, 29, 20)


def purchases(customers: int = 800, products: int = 300, tastes: int = 10, seed: int = 7) -> list[str]:
    """Lines of a log of 120 days: most of what a customer buys is of her taste, and one line of forty is a return."""
    chance = random.Random(seed)
    lines = []
    for customer in range(customers):
        taste = customer % tastes
        for _ in range(chance.randint(10, 40)):
            # The first products of a taste are bought most, so that popularity has something to say too.
            place = min(int(chance.expovariate(1 / 8)), products // tastes - 1)
            own = taste if chance.random() < 0.8 else chance.randrange(tastes)
            moment = END - timedelta(minutes=chance.randint(0, 120 * 24 * 60))
            quantity = -1 if chance.random() < 0.025 else chance.randint(1, 3)
            lines.append(f"c-{customer},p-{place * tastes + own:03},{moment:%Y-%m-%d %H:%M:00},{quantity},{1 + own}.95")
    return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as its reader has it, and her file: the jobs, the scripts, an environment, purchases.csv."""
    made = tmp_path_factory.mktemp("project")
    (made / "jobs").symlink_to(PROJECT / "jobs")
    (made / "deploy/cron").mkdir(parents=True)
    script = made / "deploy/cron/nightly.sh"  # a copy: it looks for the project around the place where it lies
    script.write_bytes((PROJECT / "deploy/cron/nightly.sh").read_bytes())
    python = made / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in (script, python):
        program.chmod(0o755)
    rows = ["customer,product,bought_at,quantity,price", *purchases()]
    (made / "purchases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for language, text in BLOCKS:
        if language == "yaml":
            file = made / text.splitlines()[0].removeprefix("# ")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return made


def run(script: str, folder: Path) -> str:
    environment = {
        **os.environ,
        "PATH": f"{folder / '.venv/bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "JAVA_TOOL_OPTIONS": SHORT_LIVED,
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stderr[-4000:]}"
    return done.stdout


def summaries(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith('{"run_id"')]


def test_the_tutorial_leads_to_a_promoted_model_and_todays_lists(folder: Path) -> None:
    """One story, in the page's order."""
    outputs = [run(text, folder) for language, text in BLOCKS if language == "bash"]
    ran = {(one["job"], one["run_id"]): one for output in outputs for one in summaries(output)}
    assert {one["exit_code"] for one in ran.values()} == {0}
    assert ran["build_features", "first"]["counts"]["refused"]["returned"] > 0
    assert ran["pipeline", "second"]["counts"]["gate"]["promoted"]
    assert (folder / "data/shop/reports/second/report.html").is_file()
    assert (folder / "tuned/tuning.yaml").is_file()
    lines = [line for line in outputs[-2].splitlines() if line.startswith("{")]
    assert len(json.loads(lines[0])["items"]) == 10
    assert (folder / "data/shop/exports/recommendations/second").is_dir()
    assert ("score_topk", "night-2024-03-30") in ran
    tuned = yaml.safe_load((folder / "tuned/tuning.yaml").read_text(encoding="utf-8"))["als"]
    models = deltalake.DeltaTable(str(folder / "data/shop/gold/models")).to_pyarrow_table().to_pylist()
    configs = {model["model_id"]: json.loads(model["config"])["als"] for model in models}
    assert tuned.items() <= configs["second"].items() and tuned.items() <= configs["night-2024-03-30"].items()


def test_every_command_of_the_page_is_run_or_installs() -> None:
    commands = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
    jobs = set(re.findall(r"jobs/(\w+)\.py", "\n".join(commands)))
    assert jobs == {"ingest", "build_features", "pipeline", "tune", "score_topk"}
    (installing,) = [text for language, text in BLOCKS if language == "shell"]
    assert all(line.split()[0] in ("make", "source") for line in installing.splitlines())
