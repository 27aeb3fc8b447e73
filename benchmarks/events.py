"""What jobs moved and how evenly their tasks worked, from Spark's own event log."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

SETTINGS = {
    "spark.eventLog.enabled": "true",
    "spark.eventLog.compress": "false",
    "spark.eventLog.rolling.enabled": "false",
    "spark.eventLog.logBlockUpdates.enabled": "true",
}


def moved(log: Path) -> dict[str, int]:
    """Return the bytes that each described job moved: results, shuffles, and broadcasts to its executors.

    A broadcast belongs to the job whose task first stored it. Bytes are those of Spark's task metrics and
    block updates.
    """
    stages: dict[int, str] = {}
    running = ""
    found: dict[str, int] = defaultdict(int)
    broadcasts: set[tuple[str, str]] = set()
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        match event["Event"]:
            case "SparkListenerJobStart":
                running = (event.get("Properties") or {}).get("spark.job.description", "")
                stages |= dict.fromkeys(event["Stage IDs"], running)
            case "SparkListenerTaskEnd" if event.get("Task Metrics"):
                metrics = event["Task Metrics"]
                read = metrics["Shuffle Read Metrics"]
                found[stages.get(event["Stage ID"], "")] += (
                    metrics["Result Size"] + read["Remote Bytes Read"] + read["Local Bytes Read"]
                )
            case "SparkListenerBlockUpdated":
                block = event["Block Updated Info"]
                key = (block["Block Manager ID"]["Executor ID"], block["Block ID"])
                if "_piece" in block["Block ID"] and key not in broadcasts:
                    broadcasts.add(key)
                    found[running] += block["Memory Size"] + block["Disk Size"]
    return dict(found)


@dataclass(frozen=True)
class Stage:
    """A stage of a group of jobs: its tasks, the seconds that they ran, the slowest one's, bytes shuffled."""

    group: str
    name: str
    tasks: int
    seconds: float
    slowest: float
    shuffled: int


def stages(log: Path) -> list[Stage]:
    """Return the stages that ran tasks, those that took longest first; shuffled is what they read of shuffles."""
    jobs: dict[int, tuple[str, str]] = {}
    times: dict[int, list[float]] = defaultdict(list)
    read: dict[int, int] = defaultdict(int)
    for line in log.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        match event["Event"]:
            case "SparkListenerJobStart":
                group = (event.get("Properties") or {}).get("spark.jobGroup.id", "")
                for info in event["Stage Infos"]:
                    jobs.setdefault(info["Stage ID"], (group, info["Stage Name"]))
            case "SparkListenerTaskEnd" if event.get("Task Metrics"):
                stage, metrics = event["Stage ID"], event["Task Metrics"]
                times[stage].append(metrics["Executor Run Time"] / 1000)
                shuffle = metrics["Shuffle Read Metrics"]
                read[stage] += shuffle["Remote Bytes Read"] + shuffle["Local Bytes Read"]
    found = [Stage(*jobs[stage], len(ran), sum(ran), max(ran), read[stage]) for stage, ran in times.items()]
    return sorted(found, key=lambda stage: -stage.seconds)
