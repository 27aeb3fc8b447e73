"""Bytes that an epoch moves, from Spark's own event log."""

import json
from collections import defaultdict
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
