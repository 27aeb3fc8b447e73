"""SQL that gives the figures of a page again from the tables, as the page shows it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from recsys_spark.evaluation import exact
from recsys_spark.evaluation.comparison import Effect, standard_errors
from recsys_spark.evaluation.report.content import BANDS
from recsys_spark.evaluation.resampling import ALL, POISSON, Resampling

_MEANS = """SELECT model, metric, count(*) AS users, avg(value) AS mean
FROM   {metrics}
LATERAL VIEW explode(metrics) AS metric, value
GROUP BY model, metric
ORDER BY model, metric"""

_DIFFERENCES = """SELECT rival, segment, metric,
       count(*)                                  AS users,
       avg(before)                               AS before,
       avg(after)                                AS after,
       avg(after - before)                       AS difference,
       stddev(after - before) / sqrt(count(*))   AS standard_error
FROM  (SELECT old.model AS rival, segment, metric, old.metrics[metric] AS before, after
       FROM   {metrics} new
       JOIN   {metrics} old USING (user_id)
       LATERAL VIEW explode(new.metrics) AS metric, after
       LATERAL VIEW explode(concat(array('{all}'), new.segments)) AS segment
       WHERE  new.model = '{challenger}' AND old.model <> new.model)
WHERE  before IS NOT NULL AND after IS NOT NULL
GROUP BY rival, segment, metric
ORDER BY rival, segment, metric"""

# Changes are whole numbers, as the comparison sums them, so that ties are ties here, too.
_EFFECTS = """WITH changes AS (
  SELECT old.model AS rival, segment, metric, user_id, before, after,
         CAST(rint(after * {unit}) - rint(before * {unit}) AS BIGINT) AS change
  FROM  (SELECT * FROM {metrics}
         LATERAL VIEW explode(metrics) AS metric, after
         LATERAL VIEW explode(concat(array('{all}'), segments)) AS segment) new
  JOIN  (SELECT * FROM {metrics}
         LATERAL VIEW explode(metrics) AS metric, before) old USING (user_id, metric)
  WHERE  new.model = '{challenger}'
         AND ({asked})
), sums AS (
  SELECT rival, segment, metric, count(*) AS users, avg(before) AS before, avg(after) AS after,
         avg(after - before) AS difference, sum(change) AS observed, avg(abs(change)) / {unit} AS moved
  FROM   changes
  GROUP BY rival, segment, metric
  HAVING segment = '{all}' OR count(*) >= {least}
), draws AS (
  SELECT rival, segment, metric, change, replicate,
         shiftright(xxhash64(user_id, {seed}L, replicate DIV 4), INT(16 * (replicate % 4))) & 65535 AS bits,
         shiftright(xxhash64(user_id, {seed}L, -1 - replicate DIV 64), INT(replicate % 64)) & 1 AS kept
  FROM   changes LATERAL VIEW explode(sequence(0L, {last}L)) AS replicate
), weighted AS (
  SELECT *,
         CASE {weights} END AS weight
  FROM   draws
), replicates AS (
  SELECT rival, segment, metric, sum(kept * change) AS kept,
         sum(weight * change) / nullif(sum(weight), 0) / {unit} AS mean
  FROM   weighted
  GROUP BY rival, segment, metric, replicate
), resampled AS (
  SELECT rival, segment, metric, array_sort(collect_list(mean)) AS means, stddev(mean) AS error,
         collect_list(kept) AS kept,
         (count(mean) + 1) * {tail} AS low_at, (count(mean) + 1) * (1 - {tail}) AS high_at
  FROM   replicates
  GROUP BY rival, segment, metric
), tested AS (
  SELECT *, IF(segment = '{all}', NULL, metric) AS family,
         CASE {z} END AS z,
         users * error * error + difference * difference AS squares,
         (1 + size(filter(kept, each -> abs(2 * each - observed) >= abs(observed)))) / {drawn} AS p
  FROM   sums JOIN resampled USING (rival, segment, metric)
), ordered AS (
  SELECT *, (users * moved + 2) / (coalesce(users * moved * moved / nullif(squares, 0), 0) + 2) AS size,
         (count(*) OVER (PARTITION BY rival, family)
          - row_number() OVER (PARTITION BY rival, family ORDER BY p) + 1) * p AS times_p
  FROM   tested
)
SELECT rival, segment, metric, users, before, after, difference,
       means[INT(low_at) - 1] + low_at % 1 * (means[INT(low_at)] - means[INT(low_at) - 1])      AS low,
       means[INT(high_at) - 1] + high_at % 1 * (means[INT(high_at)] - means[INT(high_at) - 1])  AS high,
       p, least(1, max(times_p) OVER (PARTITION BY rival, family ORDER BY p))                   AS p_adjusted,
       z * z * size / (2 * users) + sqrt(pow(z * z * size / (2 * users), 2) + pow(z * error, 2)) AS detectable
FROM   ordered
ORDER BY rival, segment, metric"""

_SHARES = """SELECT model, items, items_in / of_all AS of_items,
       users / sum(users) OVER (PARTITION BY model)            AS of_histories,
       lists / nullif(sum(lists) OVER (PARTITION BY model), 0) AS of_places
FROM  (SELECT model, items, of_all, min(place) AS first, count(*) AS items_in, sum(users) AS users, sum(lists) AS lists
       FROM  (SELECT *, CASE {bands} END AS items
              FROM  (SELECT model, users, shown[{k}] AS lists, count(*) OVER (PARTITION BY model) AS of_all,
                            row_number() OVER (PARTITION BY model ORDER BY users DESC, item_id) AS place
                     FROM   {exposure}
                     WHERE  users > 0))
       GROUP BY model, items, of_all)
ORDER BY model, first"""

_OBJECTIVE = """SELECT before + 1 AS epoch, value
FROM   {models}
LATERAL VIEW posexplode(objective) AS before, value
ORDER BY epoch"""

_MOMENTS = """SELECT as_of, users, challenger_mean AS model, champion_mean AS best_list, difference, low, high
FROM   {backtests}
WHERE  metric = '{metric}'
ORDER BY as_of"""

_PROFILE = """SELECT measure, key, value
FROM   {profile}
ORDER BY measure, key"""


def rows(path: str, condition: str) -> str:
    """Return the relation of some rows of a table.

    >>> rows("data/gold/metrics", "run_id = 'night'")
    "(SELECT * FROM delta.`data/gold/metrics` WHERE run_id = 'night')"
    """
    return f"(SELECT * FROM delta.`{path}` WHERE {condition})"


def means(metrics: str) -> str:
    """Return the query of the means of all models. metrics: the run's rows of gold.metrics, a relation."""
    return _MEANS.format(metrics=metrics)


def differences(metrics: str, challenger: str) -> str:
    """Return the query of users, means and differences of every rival, segment and metric."""
    return _DIFFERENCES.format(metrics=metrics, challenger=challenger, all=ALL)


def effects(
    metrics: str,
    challenger: str,
    rivals: Mapping[str, Sequence[str]],
    judged: Sequence[str],
    found: Sequence[Effect],
    settings: Resampling,
    confidence: float,
    power: float,
    least: int,
) -> str:
    """Return the query of what `comparison.compare` returns.

    metrics: the run's rows of gold.metrics, a relation; rivals: with whom the challenger is compared, each by these
    metrics of all users, by every one where there are none; judged: the metrics that are compared on segments, too.
    found: the effects on segments, of which there are as many as say what is detectable.
    """
    whole = f"segment = '{ALL}'"
    line = "\n              "
    asked = f"{line}OR ".join(
        f"old.model = '{rival}' AND "
        + (f"{whole} AND metric IN {_texts(names)}" if names else f"({whole} OR metric IN {_texts(judged)})")
        for rival, names in rivals.items()
    )
    z = f"WHEN {whole} THEN {standard_errors(confidence, power)!r}D"
    for metric, n in sorted(Counter(effect.metric for effect in found if effect.segment != ALL).items()):
        z += f"{line}WHEN metric = '{metric}' THEN {standard_errors(1 - (1 - confidence) / n, power)!r}D"
    return _EFFECTS.format(
        metrics=metrics, challenger=challenger, asked=asked, all=ALL, least=least, z=z, unit=2**exact.LOW_BITS,
        weights=line.join(f"WHEN bits < {step} THEN {weight}" for weight, step in enumerate(POISSON))
        + f"{line}ELSE {len(POISSON)}",
        seed=settings.seed, last=settings.replicates - 1, drawn=settings.replicates + 1,
        tail=f"{round((1 - confidence) / 2, 12)!r}D",
    )  # fmt: skip


def shares(exposure: str, k: int) -> str:
    """Return the query of how list places spread over the catalogue. exposure: rows of gold.exposure, a relation."""
    limits = (f"WHEN place <= greatest(1, rint({share!r}D * of_all)) THEN '{name}'" for share, name in BANDS)
    bands = "\n                      ".join(limits)
    return _SHARES.format(exposure=exposure, k=k, bands=bands)


def objective(models: str) -> str:
    """Return the query of the objective by epoch. models: the model's row of gold.models, a relation."""
    return _OBJECTIVE.format(models=models)


def moments(backtests: str, metric: str) -> str:
    """Return the query of a metric at the moments of a backtest. backtests: its rows of gold.backtests, a relation."""
    return _MOMENTS.format(backtests=backtests, metric=metric)


def profile(profile: str) -> str:
    """Return the query of what the log is like. profile: the rows of gold.profile of a moment, a relation."""
    return _PROFILE.format(profile=profile)


def _texts(names: Sequence[str]) -> str:
    return "(" + ", ".join(f"'{name}'" for name in names) + ")"
