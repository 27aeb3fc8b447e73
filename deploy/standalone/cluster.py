"""A standalone Spark cluster on loopback from the installed pyspark, and a job on it, by one command.

    python deploy/standalone/cluster.py --workers 2 -- \\
        jobs/pipeline.py --config conf/completejourney.yaml --run-id night

What follows `--` is spark-submit's: options of its own, then the job and its arguments. The cluster has a new secret,
the job conf/spark/standalone.conf and the package as a zip. Everything started is stopped by its pid, whatever the
job's end, and secret and zip are deleted. The exit code is spark-submit's. SIGTERM, or a terminal that hangs up, stops
the job, then the cluster, and the exit code is 143, or 129.

    python deploy/standalone/cluster.py --write-conf /etc/recsys-spark

only writes spark-defaults.conf, with a new secret, to be copied to the hosts of a larger cluster.
"""

import argparse
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import pyspark

SPARK_HOME = Path(pyspark.__file__).parent
PROJECT = Path(__file__).parents[2]
STANDALONE = PROJECT / "conf" / "spark" / "standalone.conf"
_DEPLOY = "org.apache.spark.deploy"
_STOPPING = (signal.SIGTERM, signal.SIGHUP)


def secured(folder: Path) -> Path:
    """Write spark-defaults.conf, which makes a cluster of all that read it, into a folder; return the folder.

    It has a new random secret, is for its owner's eyes alone, and has the authentication and the encryption of
    conf/spark/standalone.conf, whose pages end nothing. Raises FileExistsError where there is one: its cluster would
    fall apart.
    """
    shared = ("spark.authenticate", "spark.network.crypto", "spark.ui.killEnabled")
    lines = [line for line in STANDALONE.read_text(encoding="utf-8").splitlines() if line.startswith(shared)]
    folder.mkdir(parents=True, exist_ok=True)
    private = os.open(folder / "spark-defaults.conf", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(private, "w", encoding="utf-8") as file:
        file.write("\n".join([*lines, f"spark.authenticate.secret {secrets.token_hex(32)}"]) + "\n")
    return folder


def free_ports(n: int) -> list[int]:
    """Return n ports of loopback on which nobody listens."""
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(n)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


@contextmanager
def _server(environment: dict[str, str], log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Spark daemon in the foreground of a process group of its own, and end it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(SPARK_HOME / "bin" / "spark-class"), *command],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], seconds: float = 20) -> None:
    """Ask a process to end, and kill it after some seconds."""
    process.terminate()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(log: Path, words: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if re.search(words, log.read_text(errors="replace")):
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"a Spark daemon did not come up: {log.read_text(errors='replace')[-2000:]}")


def _environment(conf: Path | None) -> dict[str, str]:
    """Return the variables by which daemons and spark-submit are of this pyspark, this Python and loopback."""
    own = {
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_MASTER_HOST": "127.0.0.1",
        "SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false",
        "PYSPARK_PYTHON": sys.executable,
        **({} if conf is None else {"SPARK_CONF_DIR": str(conf)}),
    }
    return {name: value for name, value in os.environ.items() if name != "PYSPARK_GATEWAY_PORT"} | own


@contextmanager
def cluster(
    workers: int = 1, cores: int = 1, memory: str = "2g", conf: Path | None = None
) -> Iterator[tuple[str, list[int]]]:
    """Yield the master's URL and the workers' pids of a cluster that listens on 127.0.0.1 only.

    conf: folder that `secured` wrote to; master and workers then take in only who knows its secret.
    """
    environment = _environment(conf)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-cluster-")))
        (port,) = free_ports(1)
        url = f"spark://127.0.0.1:{port}"
        log = folder / "master.log"
        master = stack.enter_context(
            _server(
                environment,
                log,
                f"{_DEPLOY}.master.Master",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                "--webui-port",
                "0",
            )
        )
        _wait_for(log, "New state: ALIVE", master)
        pids = []
        for number in range(workers):
            log = folder / f"worker-{number}.log"
            worker = stack.enter_context(
                _server(
                    environment,
                    log,
                    f"{_DEPLOY}.worker.Worker",
                    "--host",
                    "127.0.0.1",
                    "--webui-port",
                    "0",
                    "--cores",
                    str(cores),
                    "--memory",
                    memory,
                    "--work-dir",
                    str(folder / f"work-{number}"),
                    url,
                )
            )
            _wait_for(log, "Successfully registered with master", worker)
            pids.append(worker.pid)
        yield url, pids


def _stop(number: int, _: FrameType | None) -> None:
    """Leave all with-blocks, which stop what they started; a second signal does not cut that short."""
    for stopping in _STOPPING:
        signal.signal(stopping, signal.SIG_IGN)
    raise SystemExit(128 + number)


def submit(given: list[str], workers: int, cores: int, memory: str) -> int:
    """Run spark-submit with a cluster around it; return its exit code.

    given: what spark-submit gets beside the master, conf/spark/standalone.conf and the zipped package.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-submit-") as folder:
        conf, package = secured(Path(folder) / "conf"), Path(folder) / "recsys_spark.zip"
        archive = [sys.executable, str(PROJECT / "deploy" / "archive.py"), str(package)]
        subprocess.run(archive, stdout=subprocess.DEVNULL, check=True)
        with cluster(workers, cores, memory, conf) as (url, _):
            own = ["--master", url, "--properties-file", str(STANDALONE), "--load-spark-defaults"]
            command = [str(SPARK_HOME / "bin" / "spark-submit"), *own, "--py-files", str(package), *given]
            process = subprocess.Popen(command, env=_environment(conf))
            try:
                return process.wait()
            finally:
                end(process, seconds=30)  # which a job has to come to its end


def main() -> int:
    """Submit a job to a cluster that is there as long as the job."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--cores", type=int, default=1, help="of each worker")
    arguments.add_argument("--memory", default="2g", help="of each worker")
    arguments.add_argument("--write-conf", type=Path, metavar="FOLDER", help="write spark-defaults.conf, start nothing")
    arguments.add_argument("job", nargs=argparse.REMAINDER, metavar="-- JOB", help="what spark-submit gets")
    given = arguments.parse_args()
    if given.write_conf:
        print(secured(given.write_conf) / "spark-defaults.conf")
        return 0
    job = given.job[1:] if given.job[:1] == ["--"] else given.job
    if not job:
        arguments.error("after -- comes a job, such as jobs/pipeline.py, with its arguments")
    for stopping in _STOPPING:
        if signal.getsignal(stopping) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(stopping, _stop)
    return submit(job, given.workers, given.cores, given.memory)


if __name__ == "__main__":
    raise SystemExit(main())
