"""What the numbers were measured on."""

import os
import platform
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
