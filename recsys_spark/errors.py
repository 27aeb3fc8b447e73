"""Errors that end a job: what an orchestrator reads (exit code) and what a person reads (one line)."""


class JobError(Exception):
    """An expected end of a job: one line that names the thing, the value and the remedy."""

    exit_code = 70
    status = "internal"


class UsageError(JobError):
    """The command line cannot be understood."""

    exit_code = 64
    status = "usage"


class DataError(JobError):
    """The input data cannot be used: a missing file or column, nothing left after validation."""

    exit_code = 65
    status = "bad_data"


class DependencyError(JobError):
    """Something this program needs is not there: Java, the Delta jars, the storage."""

    exit_code = 69
    status = "unavailable"


class TryAgainError(JobError):
    """A transient fault: the same command may succeed later."""

    exit_code = 75
    status = "try_again"


class ConfigError(JobError):
    """The configuration, or the state that it asks for, is wrong."""

    exit_code = 78
    status = "bad_config"
