"""What every Python worker should do once, before its first task of ours ends."""

import gc

_settled = False


def settle() -> None:
    """Take all that is imported by now out of the garbage collector's sight, once a process.

    Spark's worker collects garbage after every task, and walking the objects of NumPy, Numba and PyArrow costs
    more than a small task itself.
    """
    global _settled
    if not _settled:
        gc.collect()
        gc.freeze()
        _settled = True
