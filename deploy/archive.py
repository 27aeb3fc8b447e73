"""The package as the zip that spark-submit ships to workers: `python deploy/archive.py FILE`.

It has the package's sources alone, in a fixed order and with a fixed time: the same sources give the same bytes.
"""

import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

PROJECT = Path(__file__).parents[1]
_SHIPPED = {".py", ".j2", ".css", ".js"}  # the code, and the parts of the report


def archive(path: Path) -> Path:
    """Write the zip for --py-files, in place of one that may be there; return where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(path, "w") as file:
        for source in sorted(found for found in (PROJECT / "recsys_spark").rglob("*") if found.suffix in _SHIPPED):
            file.writestr(ZipInfo(source.relative_to(PROJECT).as_posix()), source.read_bytes(), ZIP_DEFLATED)
    return path


if __name__ == "__main__":
    print(archive(Path(sys.argv[1])))
