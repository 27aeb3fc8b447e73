"""The schema of every table, and the names of its columns; checked at every write."""

from pyspark.sql import types as t

USER_ID = "user_id"
ITEM_ID = "item_id"
USER_INDEX = "user_index"
ITEM_INDEX = "item_index"
AS_OF = "as_of"
RUN_ID = "run_id"
MODEL_ID = "model_id"

# Columns that ingest adds to the source's own, which stay as received, as strings.
SOURCE_FILE = "_file"
LINE = "_line"
PART = "_part"
INGESTED_AT = "_ingested_at"
MODIFIED_AT = "_modified_at"
BRONZE_COLUMNS = (
    t.StructField(SOURCE_FILE, t.StringType(), True),
    t.StructField(LINE, t.LongType(), True),
    t.StructField(PART, t.StringType(), True),
    t.StructField(MODIFIED_AT, t.TimestampType(), True),
    t.StructField(INGESTED_AT, t.TimestampType(), True),
)


def _table(**columns: t.DataType) -> t.StructType:
    return t.StructType([t.StructField(name, kind, True) for name, kind in columns.items()])


SCORED_ITEMS = t.ArrayType(_table(item_id=t.StringType(), score=t.FloatType()))
REASONS = t.ArrayType(_table(item_id=t.StringType(), contribution=t.FloatType()))
RANKED_ITEMS = t.ArrayType(_table(item_id=t.StringType(), score=t.FloatType(), because=REASONS))

# Features of users and items alike, null where the configuration does not name them; see transforms.features.
_GATHERED: dict[str, t.DataType] = {
    "recency": t.DoubleType(),
    "age": t.DoubleType(),
    "events_in": t.MapType(t.StringType(), t.LongType()),
    "trend": t.DoubleType(),
    "sums": t.MapType(t.StringType(), t.DoubleType()),
    "means": t.MapType(t.StringType(), t.DoubleType()),
    "levels": t.MapType(t.StringType(), t.DoubleType()),
    "hours": t.ArrayType(t.DoubleType()),
    "weekdays": t.ArrayType(t.DoubleType()),
}

SCHEMAS: dict[str, t.StructType] = {
    "silver.quarantine": _table(
        run_id=t.StringType(),
        reason=t.StringType(),
        _file=t.StringType(),
        _line=t.LongType(),
        _part=t.StringType(),
        record=t.StringType(),
    ),
    "silver.interactions": _table(
        as_of=t.TimestampType(),
        user_id=t.StringType(),
        item_id=t.StringType(),
        weight=t.DoubleType(),
        events=t.LongType(),
        event_types=t.ArrayType(t.StringType()),
        hidden=t.BooleanType(),
        first_time=t.TimestampType(),
        last_time=t.TimestampType(),
        core=t.BooleanType(),
    ),
    "silver.items": _table(
        item_id=t.StringType(),
        name=t.StringType(),
        category=t.StringType(),
        valid_from=t.TimestampType(),
        valid_to=t.TimestampType(),
        attributes=t.MapType(t.StringType(), t.StringType()),
        rows=t.LongType(),
    ),
    "silver.users": _table(user_id=t.StringType(), segment=t.StringType()),
    "gold.user_ids": _table(user_id=t.StringType(), user_index=t.IntegerType()),
    "gold.item_ids": _table(item_id=t.StringType(), item_index=t.IntegerType()),
    "gold.item_features": _table(
        as_of=t.TimestampType(),
        item_id=t.StringType(),
        events=t.LongType(),
        users=t.LongType(),
        user_days=t.DoubleType(),
        popularity=t.DoubleType(),
        popularity_decayed=t.DoubleType(),
        adoptions_decayed=t.DoubleType(),
        first_time=t.TimestampType(),
        last_time=t.TimestampType(),
        **_GATHERED,
        category=t.StringType(),
        category_share=t.DoubleType(),
    ),
    "gold.user_features": _table(
        as_of=t.TimestampType(),
        user_id=t.StringType(),
        events=t.LongType(),
        items=t.LongType(),
        first_time=t.TimestampType(),
        last_time=t.TimestampType(),
        **_GATHERED,
        category=t.StringType(),
        categories=t.MapType(t.StringType(), t.DoubleType()),
        friends=t.LongType(),
        friends_items=t.MapType(t.StringType(), t.LongType()),
    ),
    "gold.profile": _table(
        as_of=t.TimestampType(),
        measure=t.StringType(),
        key=t.StringType(),
        value=t.DoubleType(),
    ),
    "gold.models": _table(
        model_id=t.StringType(),
        kind=t.StringType(),
        as_of=t.TimestampType(),
        status=t.StringType(),
        config=t.StringType(),
        inputs=t.MapType(t.StringType(), t.LongType()),
        moving_side=t.StringType(),
        started_from=t.StringType(),
        mean=t.DoubleType(),
        epochs=t.IntegerType(),
        objective=t.ArrayType(t.DoubleType()),
        seconds=t.ArrayType(t.DoubleType()),
        code_version=t.StringType(),
    ),
    "gold.item_factors": _table(
        model_id=t.StringType(),
        epoch=t.IntegerType(),
        item_index=t.IntegerType(),
        factors=t.ArrayType(t.FloatType()),
        bias=t.FloatType(),
    ),
    "gold.user_factors": _table(
        model_id=t.StringType(),
        epoch=t.IntegerType(),
        user_index=t.IntegerType(),
        factors=t.ArrayType(t.FloatType()),
    ),
    "gold.item_vectors": _table(
        model_id=t.StringType(),
        item_index=t.IntegerType(),
        vector=t.ArrayType(t.FloatType()),
        degree=t.DoubleType(),
    ),
    "gold.spectral_steps": _table(
        model_id=t.StringType(),
        step=t.IntegerType(),
        column=t.IntegerType(),
        product=t.ArrayType(t.FloatType()),
    ),
    "gold.recommendations": _table(
        model_id=t.StringType(),
        as_of=t.TimestampType(),
        user_id=t.StringType(),
        items=RANKED_ITEMS,
        source=t.StringType(),
    ),
    "gold.recommendations_parts": _table(
        model_id=t.StringType(),
        as_of=t.TimestampType(),
        work=t.StringType(),
        part=t.IntegerType(),
        user_id=t.StringType(),
        items=RANKED_ITEMS,
        source=t.StringType(),
    ),
    "gold.item_neighbours": _table(
        model_id=t.StringType(),
        as_of=t.TimestampType(),
        kind=t.StringType(),
        item_id=t.StringType(),
        items=SCORED_ITEMS,
    ),
    "gold.runs": _table(
        run_id=t.StringType(),
        attempt=t.IntegerType(),
        job=t.StringType(),
        stage=t.StringType(),
        status=t.StringType(),
        exit_code=t.IntegerType(),
        as_of=t.TimestampType(),
        started_at=t.TimestampType(),
        seconds=t.DoubleType(),
        counts=t.MapType(t.StringType(), t.LongType()),
        inputs=t.MapType(t.StringType(), t.LongType()),
        outputs=t.MapType(t.StringType(), t.LongType()),
        python_peak_bytes=t.LongType(),
        jvm_peak_bytes=t.LongType(),
        application_id=t.StringType(),
        code_version=t.StringType(),
        error=t.StringType(),
    ),
    "gold.trials": _table(
        study=t.StringType(),
        trial=t.IntegerType(),
        settings=t.StringType(),
        values=t.MapType(t.IntegerType(), t.DoubleType()),
        stopped=t.BooleanType(),
        epochs=t.IntegerType(),
        value=t.DoubleType(),
        prior_weight=t.DoubleType(),
        prior_popularity=t.StringType(),
        popularity_half_life=t.DoubleType(),
        popularity_value=t.DoubleType(),
        seconds=t.DoubleType(),
    ),
    "gold.metrics": _table(
        run_id=t.StringType(),
        model_id=t.StringType(),
        model=t.StringType(),
        as_of=t.TimestampType(),
        user_id=t.StringType(),
        relevant=t.IntegerType(),
        segments=t.ArrayType(t.StringType()),
        metrics=t.MapType(t.StringType(), t.DoubleType()),
    ),
    "gold.comparisons": _table(
        comparison_id=t.StringType(),
        as_of=t.TimestampType(),
        challenger=t.StringType(),
        champion=t.StringType(),
        metric=t.StringType(),
        segment=t.StringType(),
        users=t.LongType(),
        champion_mean=t.DoubleType(),
        challenger_mean=t.DoubleType(),
        difference=t.DoubleType(),
        low=t.DoubleType(),
        high=t.DoubleType(),
        confidence=t.DoubleType(),
        p=t.DoubleType(),
        p_adjusted=t.DoubleType(),
        detectable=t.DoubleType(),
    ),
    "gold.backtests": _table(
        backtest_id=t.StringType(),
        comparison_id=t.StringType(),
        as_of=t.TimestampType(),
        challenger=t.StringType(),
        champion=t.StringType(),
        metric=t.StringType(),
        users=t.LongType(),
        champion_mean=t.DoubleType(),
        challenger_mean=t.DoubleType(),
        difference=t.DoubleType(),
        low=t.DoubleType(),
        high=t.DoubleType(),
        p=t.DoubleType(),
    ),
    "gold.champion": _table(
        number=t.LongType(),
        decided_at=t.TimestampType(),
        run_id=t.StringType(),
        as_of=t.TimestampType(),
        action=t.StringType(),
        promoted=t.BooleanType(),
        challenger=t.StringType(),
        champion_before=t.StringType(),
        champion=t.StringType(),
        comparison_id=t.StringType(),
        reasons=t.ArrayType(t.StringType()),
        ranking=t.StringType(),
        gate=t.StringType(),
    ),
}
