"""What an error means that nobody raised on purpose: its exit code, and a remedy beside its own words."""

import re

from recsys_spark.errors import DataError, DependencyError, JobError, TryAgainError

AGAIN = "run it again with the same --run-id"
# A run id of train_als is of one size of blocks.
MORE_MEMORY = "raise spark.executor.memoryOverhead or lower als.block_interactions under another run id"

# Words of the JVM, of Delta, of the operating system; what they mean; what to do. The first that is found counts: an
# executor that is gone refuses connections too, and so does a driver's JVM, in Python's words.
_MEANINGS: tuple[tuple[str, type[JobError], str], ...] = (
    ("files changed while they were read", TryAgainError, f"files changed while they were read: {AGAIN}"),
    (
        "No space left on device|Disk quota exceeded",
        DependencyError,
        f"a disk is full: free space under storage.root and Spark's local directories, then {AGAIN}",
    ),
    (
        "Read-only file system",
        DependencyError,
        f"a disk can only be read: make storage.root and Spark's local directories writable, then {AGAIN}",
    ),
    (
        "DELTA_CANNOT_CREATE_LOG_PATH|Mkdirs failed to create",
        DependencyError,
        "a folder of a table cannot be made: its disk can only be read, or is full; make storage.root writable, "
        f"then {AGAIN}",
    ),
    (
        "DELTA_TABLE_NOT_FOUND|DELTA_MISSING_DELTA_TABLE|DELTA_PATH_DOES_NOT_EXIST|is not a Delta table|PATH_NOT_FOUND",
        DataError,
        "a table was deleted while the job ran: run the job that writes it, then this one again",
    ),
    (
        "OutOfMemoryError|Java heap space",
        DependencyError,
        f"memory ran out: raise spark.driver.memory or spark.executor.memory, then {AGAIN}",
    ),
    (
        "ExecutorLostFailure|MetadataFetchFailedException|FetchFailed|All masters are unresponsive|"
        "Master removed our application|BlockFetchException|java.io.IOException: Failed to connect to",
        TryAgainError,
        f"executors were lost again and again: {AGAIN}; if it happens again, look at the workers, {MORE_MEMORY}",
    ),
    (
        "Python worker exited unexpectedly",
        TryAgainError,
        f"a Python worker was killed, most likely for memory: {AGAIN}; if it happens again, {MORE_MEMORY}; on one "
        "machine take fewer cores (SPARK_MASTER='local[N]')",
    ),
    (
        "UnknownHostException|NoRouteToHostException|SocketTimeoutException|ConnectTimeoutException|SafeModeException|"
        "StandbyException|SlowDown|java.net.ConnectException|failed on connection exception|Connect to .* failed: ",
        DependencyError,
        f"storage cannot be reached: look at the network, then {AGAIN}",
    ),
    (
        "AccessDenied|AccessControlException|Forbidden|Status Code: 403|ExpiredToken|InvalidToken",
        DependencyError,
        f"storage refuses access: renew the credentials, or permit it to the job's user, then {AGAIN}",
    ),
    (
        "Py4JNetworkError|Answer from Java side is empty|SparkContext was shut down|stopped SparkContext|"
        "SparkContext has been shutdown|has been stopped|Error while sending or receiving|Connection refused",
        TryAgainError,
        f"Spark came to an end while the job ran: {AGAIN}; if it happens again, give the driver more memory",
    ),
    (
        "DELTA_METADATA_CHANGED|DELTA_CONCURRENT|ConcurrentModificationException",
        TryAgainError,
        f"another writer came first: {AGAIN}",
    ),
    (
        "FAILED_READ_FILE|CANNOT_READ_FILE_FOOTER|is not a Parquet file|ParquetDecodingException|"
        "DELTA_FILE_NOT_FOUND|DELTA_LOG_FILE_NOT_FOUND|DELTA_VERSIONS_NOT_CONTIGUOUS|DELTA_TRUNCATED_TRANSACTION_LOG|"
        "DELTA_STATE_RECOVER_ERROR|JsonParseException|can not read class org.apache.parquet",
        DataError,
        'a file of a table is missing or broken: docs/operations.md, "A broken table", says how to mend it',
    ),
)


def job_error(error: Exception) -> JobError:
    """Return an error as one that ends a job, in one line that has its cause's own words.

    >>> job_error(OSError(28, "No space left on device")).exit_code
    69
    >>> str(job_error(ValueError("odd")))
    'ValueError: odd; --debug shows where'
    """
    if isinstance(error, JobError):
        return error
    everything = f"{type(error).__name__}: {error}"
    line = _line(error)
    for words, kind, meaning in _MEANINGS:
        found = re.search(rf"[^\n]*(?:{words})[^\n]*", everything)
        if found:
            told = found[0].strip() if not re.search(words, line) else line
            return kind(f"{meaning} ({_short(told)})")
    return JobError(f"{type(error).__name__}: {_short(line)}; --debug shows where")


def _line(error: Exception) -> str:
    text = str(getattr(error, "java_exception", None) or error).strip() or type(error).__name__
    return " ".join(text.split())


def _short(text: str) -> str:
    return text if len(text) <= 400 else f"{text[:400]}…"
