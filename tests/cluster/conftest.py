"""Every JVM of a cluster, and of what is submitted to it, is one that does little before it ends."""

from collections.abc import Iterator

import pytest

from recsys_spark.session import SHORT_LIVED


@pytest.fixture(scope="session", autouse=True)
def short_lived_jvms() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("JAVA_TOOL_OPTIONS", SHORT_LIVED)
        yield
