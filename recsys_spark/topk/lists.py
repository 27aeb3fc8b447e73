"""Lists as Arrow has them: items by name, in the order of their places, with scores and reasons."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_spark.topk.explain import Reasons

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]

_REASON = pa.struct([("item_id", pa.string()), ("contribution", pa.float32())])
_ITEM = pa.struct([("item_id", pa.string()), ("score", pa.float32()), ("because", pa.list_(_REASON))])
LISTS = pa.schema([("user_id", pa.string()), ("items", pa.list_(_ITEM)), ("source", pa.string())])


def named(found: Ints, scores: Floats, item_ids: pa.Array, reasons: Reasons | None = None) -> pa.Array:
    """Return lists (item_id, score, because) of found (n, k), dictionary indices, −1 at the end where there is none.

    A score that is NaN is null; so is because where no reasons are asked for.
    """
    filled = found >= 0
    ends = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int32)
    names = item_ids.take(pa.array(found[filled]))
    shown = pa.array(scores[filled], pa.float32(), from_pandas=True)
    if reasons is None:
        because = pa.nulls(len(names), pa.list_(_REASON))
    else:
        items, parts = reasons.items[filled], reasons.parts[filled]
        given = items >= 0
        cells = [item_ids.take(pa.array(items[given])), pa.array(parts[given])]
        starts = pa.array(np.concatenate([[0], np.cumsum(given.sum(axis=1))]).astype(np.int32))
        flat = pa.StructArray.from_arrays(cells, fields=list(_REASON))
        because = pa.ListArray.from_arrays(starts, flat, type=pa.list_(_REASON))
    items_of = pa.StructArray.from_arrays([names, shown, because], fields=list(_ITEM))
    return pa.ListArray.from_arrays(pa.array(ends), items_of, type=pa.list_(_ITEM))
