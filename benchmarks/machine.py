"""What the numbers were measured on."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from threadpoolctl import threadpool_info


def machine() -> dict[str, object]:
    """Return processor, cores, BLAS kernels and versions of this machine."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    blas = sorted({str(library.get("architecture")) for library in threadpool_info()})
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "blas": blas,
        "python": platform.python_version(),
    }


def measured(module: str, system: str) -> dict[str, float]:
    """Run one system of a benchmark in a process of its own, with this command's arguments; return its figures."""
    command = [sys.executable, "-m", module, *sys.argv[1:], "--system", system]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
