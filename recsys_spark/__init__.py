"""Distributed training of recommenders on Spark and Delta Lake."""

import os
import signal

__version__ = "0.1.0"

if os.environ.get("PYTHON_UNIX_DOMAIN_ENABLED", "").lower() == "true":
    # This process is a Python worker of Spark's, on a Unix socket. Spark closes that of a worker that was idle for a
    # minute; it would try to say so to the closed socket, and print a traceback for that. It is to end in peace.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
