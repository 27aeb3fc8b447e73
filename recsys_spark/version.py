"""Which program this is: its version and a hash of its sources, which models and runs are written with."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import recsys_spark


@cache
def code_version() -> str:
    """Return the version and a hash of the package's sources, such as `0.1.0+3f2a9c1b7d10`.

    The same from a checkout, an installed wheel and a zip of --py-files: Python's files alone count.
    """
    return f"{recsys_spark.__version__}+{hash_of_sources(files(recsys_spark))}"


def hash_of_sources(package: Traversable) -> str:
    """Return a hash, of 12 hexadecimal digits, of the names and contents of all .py files under a folder."""
    digest = hashlib.sha256()
    for name, source in _sources(package):
        digest.update(f"{name} {len(source)}\n".encode())
        digest.update(source)
    return digest.hexdigest()[:12]


def _sources(folder: Traversable, under: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of each .py file, a folder's entries in the order of their names."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _sources(entry, f"{under}{entry.name}/")
        elif entry.name.endswith(".py"):
            yield under + entry.name, entry.read_bytes()
