"""Rows of the driver as a frame, without the Python workers that `createDataFrame` starts for them."""

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import DataType, MapType, StructType, TimestampType


def local_frame(spark: SparkSession, rows: Iterable[Sequence[Any]], schema: StructType | str) -> DataFrame:
    """Return a frame of rows, whose values are in the order of the schema, by Arrow; times without a zone are local."""
    whole = StructType.fromDDL(schema) if isinstance(schema, str) else schema
    assert isinstance(whole, StructType)
    columns = list(zip(*rows, strict=True)) or [()] * len(whole)
    arrow = to_arrow_schema(whole, timezone="UTC")
    arrays = [
        pa.array([_told(value, field.dataType) for value in column], type=arrow.field(place).type)
        for place, (column, field) in enumerate(zip(columns, whole, strict=True))
    ]
    return spark.createDataFrame(pa.Table.from_arrays(arrays, schema=arrow), whole)


def _told(value: Any, kind: DataType) -> Any:
    """Return a value as Arrow takes it: a map as its entries, a time with its zone."""
    if isinstance(kind, MapType) and value is not None:
        return list(value.items())
    if isinstance(kind, TimestampType) and isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC)
    return value
