"""The configuration of a dataset or deployment: one YAML file, every value checked before work starts."""

import datetime as dt
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from recsys_spark.errors import ConfigError, UsageError
from recsys_spark.redaction import MASK, Secrets, has_secret, is_credential, redacted

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _duration(value: Any) -> Any:
    """Read `36h`, `31d`, `90m` or `10s`; a bare number means days."""
    if isinstance(value, bool) or value in (float("inf"), float("-inf")):
        raise ValueError("a duration is a number of days, or a number with s, m, h or d behind it")
    if isinstance(value, str) and not value.startswith("P"):  # P28D is how pydantic itself writes one
        match = re.fullmatch(r"\s*([0-9.]+)\s*([smhd])\s*", value)
        if not match:
            raise ValueError("a duration is a number with s, m, h or d behind it, such as 36h or 31d")
        value = float(match[1]) * _UNITS[match[2]] / 86400
    if isinstance(value, int | float):
        try:
            return dt.timedelta(days=value)
        except OverflowError as error:
            raise ValueError("is longer than a calendar") from error
    return value


def _positive(value: dt.timedelta) -> dt.timedelta:
    if value <= dt.timedelta(0):
        raise ValueError("must be longer than nothing")
    return value


def name_of(window: dt.timedelta) -> str:
    """Return a window as it is written in a configuration.

    >>> [name_of(dt.timedelta(hours=hours)) for hours in (1, 24, 36, 168)]
    ['1h', '1d', '36h', '7d']
    """
    seconds = window / dt.timedelta(seconds=1)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


def utc(value: Any) -> dt.datetime:
    """Read an ISO time; without a zone it is UTC.

    >>> utc("2011-11-01")
    datetime.datetime(2011, 11, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError("a time is ISO 8601, such as 2011-11-01 or 2011-11-01T06:00:00+01:00") from error
    elif isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if not isinstance(value, dt.datetime):
        raise ValueError("a time is ISO 8601, such as 2011-11-01 or 2011-11-01T06:00:00+01:00")
    try:
        return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)
    except OverflowError as error:
        raise ValueError("is beyond the calendar") from error


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(values))


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _open(path: str) -> str:
    """A path that may be written beside every row, into every log."""
    if has_secret(path):
        raise ValueError(
            "a path is written beside the rows read from it, so it must hold no password, token or signature; give "
            "credentials to Spark, as spark.hadoop.fs.… (docs/operations.md, Secrets)"
        )
    return path


Duration = Annotated[dt.timedelta, BeforeValidator(_duration), AfterValidator(_positive)]
Time = Annotated[dt.datetime, BeforeValidator(utc)]
Filled = Annotated[str, Field(min_length=1)]
Place = Annotated[Filled, AfterValidator(_open)]
Paths = Annotated[tuple[Place, ...], BeforeValidator(_as_list), Field(min_length=1)]
ACCURACY = ("recall", "precision", "ndcg", "map", "mrr", "hit_rate", "auc")  # metrics of a list and what was wanted
PROPERTIES = ("popularity", "novelty", "diversity")  # metrics of a list alone
Metric = Annotated[str, Field(pattern=rf"^((new|repeated)_)?({'|'.join((*ACCURACY, *PROPERTIES))})(@[1-9][0-9]*)?$")]
OWN_SEGMENTS = 7  # of stages.segments: five bands of histories, two of what is wanted
Lengths = Annotated[
    tuple[Annotated[int, Field(ge=1, le=10_000)], ...],
    BeforeValidator(_as_list),
    AfterValidator(_each_once),
    Field(min_length=1),
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Storage(_Section):
    """Where the tables lie."""

    root: Place = "data"
    """Folder or URL (HDFS, S3, ABFS) under which every table lies as `layer/table`."""
    keep: Duration = dt.timedelta(days=30)
    """How long a model must be able to be trained again: tables that keep old versions for less are refused."""
    runs: bool = True
    """Whether every run leaves its rows in gold.runs."""


class Columns(_Section):
    """Which column of the source means what; a column that is not there is left out."""

    user: str = "user"
    """Column of the user's id."""
    item: str = "item"
    """Column of the item's id."""
    time: str | None = None
    """Column of the event's time; without it the log has no order in time."""
    event: str | None = None
    """Column of the event's type, such as view, cart or buy."""
    value: str | None = None
    """Column of a quantity, rating or count of plays."""


class Files(_Section):
    """Files of rows as they are delivered."""

    path: Paths
    """Files or globs, local or of any Hadoop file system; `package:NAME/FILE` is a file of a Python package."""
    format: Literal["csv", "json", "parquet", "delta"] = "parquet"
    """Format of the files."""
    options: dict[str, str] = Field(default_factory=dict)
    """Options of Spark's reader, such as `sep`, `encoding`, `multiLine`; those of credentials are written nowhere."""
    header: bool = True
    """Whether a CSV file names its columns in its first line; else they are named by `names`."""
    names: tuple[str, ...] | None = None
    """Names of the columns of a CSV file without header, in order."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.format == "csv" and not self.header and not self.names:
            raise ValueError("a csv without header needs `names`, the names of its columns in order")
        return self

    def needed(self) -> dict[str, str]:
        """Return the columns that the files must have, by the key that names them."""
        return {}


class HeavyUsers(_Section):
    """Users with more events than people have, such as robots and resellers; judged by events before as_of alone."""

    events_a_day: int | None = Field(default=None, ge=1)
    """Most events of a user on one day (UTC)."""
    quantile: float | None = Field(default=None, gt=0, lt=1)
    """Most events of a user in all: as many as this share of the users do not exceed."""
    action: Literal["refuse", "cap"] = "refuse"
    """What is refused as `too_many_events`: all events of such a user, or those beyond the limit, the earliest."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.events_a_day is None) == (self.quantile is None):
            raise ValueError("heavy_users names either `events_a_day` or `quantile`")
        return self


class Source(Files):
    """The event log as it is delivered."""

    columns: Columns = Columns()
    """Which column means what."""
    time_format: str = "iso"
    """`iso`, `seconds`, `milliseconds` or `nanoseconds` since 1970, or a Spark pattern such as `dd/MM/yyyy HH:mm`."""
    timezone: str = "UTC"
    """Zone of times that name none themselves, such as `Europe/London`."""
    types: dict[str, str] = Field(default_factory=dict)
    """Spark types of columns that `filters` compute with; what cannot be read as such is null there."""
    filters: dict[str, str] = Field(default_factory=dict)
    """Rules by name: a Spark SQL expression that a row must satisfy, else it is quarantined under that name."""
    largest_value: float = Field(default=1e6, gt=0, le=1e9)
    """Largest value, above or below zero, that is believed; a row beyond it is refused as `absurd_value`."""
    negative_values: bool = False
    """Whether an event's value may be below zero, as of a return; else it is refused as `negative_value`."""
    duplicates: Literal["keep", "refuse"] = "keep"
    """Rows that repeat another in all columns: kept, or refused as `duplicate_line` but the first by file and line."""
    heavy_users: HeavyUsers | None = None
    measures: dict[str, str] = Field(default_factory=dict)
    """Numbers by name that features sum: a Spark SQL expression of a row, such as `Quantity * UnitPrice`."""
    ingested_before: Time | None = None
    """Read the log as it was before this moment: what was ingested later, late or corrected, is not there."""

    def needed(self) -> dict[str, str]:
        """Return the columns that the files must have, by the key that names them."""
        roles = self.columns.model_dump(exclude_none=True)
        wanted = {f"source.columns.{role}": name for role, name in roles.items()}
        return wanted | {f"source.types.{name}": name for name in self.types}


class ItemColumns(_Section):
    """Which column of the items' files means what."""

    item: str = "item"
    """Column of the item's id, as in the event log."""
    name: str | None = None
    """Column of the name that people know the item by."""
    category: str | None = None
    """Column of the item's category."""
    valid_from: str | None = None
    """Column of the time from which the item, or this row of it, is valid (ISO 8601)."""
    valid_to: str | None = None
    """Column of the time until which it is valid (ISO 8601), empty for no end."""


class Items(Files):
    """What is known of items; of several rows of an item the one valid since last holds, then the most frequent."""

    columns: ItemColumns = ItemColumns()
    """Which column means what."""
    attributes: tuple[str, ...] = ()
    """Further columns to keep, for `topk.eligible`: `attributes.NAME` there."""

    def needed(self) -> dict[str, str]:
        """Return the columns that the files must have, by the key that names them."""
        roles = self.columns.model_dump(exclude_none=True)
        wanted = {f"items.columns.{role}": name for role, name in roles.items()}
        return wanted | {f"items.attributes.{name}": name for name in self.attributes}


class UserColumns(_Section):
    """Which column of the users' files means what."""

    user: str = "user"
    """Column of the user's id, as in the event log."""
    segment: str = "segment"
    """Column of the segment whose popular items are a user's fallback, such as a country."""


class Users(Files):
    """What is known of users; of several rows the most frequent holds."""

    columns: UserColumns = UserColumns()
    """Which column means what."""

    def needed(self) -> dict[str, str]:
        """Return the columns that the files must have, by the key that names them."""
        return {f"users.columns.{role}": name for role, name in self.columns.model_dump().items()}


class FriendColumns(_Section):
    """Which column of the friends' files means what."""

    user: str = "user"
    """Column of the user's id, as in the event log."""
    friend: str = "friend"
    """Column of the id of a user whom that user follows or is a friend of."""


class Friends(Files):
    """A graph of users: who is a friend of whom, or follows whom."""

    columns: FriendColumns = FriendColumns()
    """Which column means what."""
    both_ways: bool = False
    """Whether a line holds for the friend too, who has no line of her own."""

    def needed(self) -> dict[str, str]:
        """Return the columns that the files must have, by the key that names them."""
        return {f"friends.columns.{role}": name for role, name in self.columns.model_dump().items()}


class Pairs(Files):
    """Pairs of user and item, in columns `user_id` and `item_id`."""

    def needed(self) -> dict[str, str]:
        """Return the columns that the files must have, by the key that names them."""
        return {"the user's id": "user_id", "the item's id": "item_id"}


class Holdout(_Section):
    """What evaluation compares with, where time does not part past from future."""

    path: Paths | None = None
    """Files of a published split, with the mapping of the source."""
    random: float | None = Field(default=None, gt=0, lt=1)
    """Share of each user's items to hold out."""
    last: int | None = Field(default=None, ge=1)
    """Hold out what each user did from her last new items on, so many of them (more where they came at one time)."""
    users: float | None = Field(default=None, gt=0, lt=1)
    """Share of users whom nothing is learnt from; `of_items` of their items are held out, the others their history."""
    of_items: float = Field(default=0.2, gt=0, lt=1)
    """Share of the items of held out users to hold out."""
    seed: int = Field(default=1, ge=0)
    """Seed of the random splits."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Holdout":
        if [self.path, self.random, self.last, self.users].count(None) != 3:
            raise ValueError("holdout names either `path` or `random` or `last` or `users`")
        return self


UserFeature = Literal[
    "recency", "age", "windows", "trend", "sums", "means", "levels", "hours", "weekdays", "categories", "friends"
]
ItemFeature = Literal["recency", "age", "windows", "trend", "sums", "means", "levels", "hours", "weekdays", "category"]


class Features(_Section):
    """From events to weighted interactions."""

    events: Annotated[dict[str, float], Field(max_length=63)] | None = None
    """Weight of each event type; types not listed are quarantined. Without it every event weighs 1."""
    hides: tuple[str, ...] = ()
    """Event types, such as dislike, that hide the item from the user and take the pair out of training."""
    value: Literal["ignore", "multiply", "log1p", "threshold"] = "ignore"
    """What a value v does to its event's weight: nothing, · v, · log(1 + v), or 0 below `value_threshold`."""
    value_cap: float | None = Field(default=None, gt=0)
    """Values beyond it, above or below zero, weigh as much as it does."""
    value_threshold: float | None = Field(default=None, gt=0)
    """Least value that weighs anything, with `value: threshold`."""
    negative: Literal["hide", "keep"] = "hide"
    """What becomes of a pair whose events against the item outweigh the others: hidden, or kept (ratings below 0)."""
    half_life: Duration | None = None
    """Age at which an event weighs half, counted back from as_of; without it age does not matter."""
    transform: Literal["sum", "mean", "log1p", "binary"] = "sum"
    """From the event weights of a pair to its weight: their sum, their mean, log(1 + sum), or 1."""
    k_core: int = Field(default=1, ge=1, le=10_000)
    """Train only on users and items with at least so many partners among the kept ones (fixed point)."""
    k_core_rounds: int | None = Field(default=None, ge=1)
    """Rounds of `k_core` at most, each of which cuts users, then items; without it as many as the fixed point takes."""
    popularity_half_life: Duration = dt.timedelta(days=28)
    """Half-life of events in the decayed popularity of items."""
    of_users: tuple[UserFeature, ...] = ("recency", "age", "windows", "trend", "sums", "means")
    """What gold.user_features tells beside events, items, first and last time; docs/data.md explains each."""
    of_items: tuple[ItemFeature, ...] = ("recency", "age", "windows", "trend", "sums", "means")
    """What gold.item_features tells beside events, users, popularity, first and last time."""
    windows: tuple[Duration, ...] = tuple(dt.timedelta(days=days) for days in (1, 7, 28, 90))
    """Windows before as_of in which events are counted and measures summed."""
    trend_window: Duration = dt.timedelta(days=7)
    """Window that the trend compares with the one before it."""
    most_categories: int = Field(default=20, ge=1, le=10_000)
    """Categories of a user whose shares are kept, those with most events."""
    most_friends_items: int = Field(default=20, ge=1, le=10_000)
    """Items of a user's friends that are kept, those that most friends have."""
    max_quarantined: float = Field(default=1.0, ge=0, le=1)
    """Largest share of rows that may be refused before the job stops."""

    def known_events(self) -> dict[str, float] | None:
        """Return the weight of every event type that is known, 0 where it hides; None where any type will do."""
        return None if self.events is None else {**self.events, **dict.fromkeys(self.hides, 0.0)}

    @field_validator("of_users", "of_items", "windows")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return _each_once(values)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        both = sorted(set(self.hides) & set(self.events or ()))
        if both:
            raise ValueError(f"hides: {', '.join(both)} has a weight in `events` too")
        if len(self.hides) + len(self.events or ()) > 63:
            raise ValueError("events and hides name more than 63 types")
        if (self.value == "threshold") != (self.value_threshold is not None):
            raise ValueError("value: threshold and value_threshold need one another")
        if self.negative == "keep" and self.transform not in ("sum", "mean"):
            raise ValueError(f"negative: keep needs transform: sum or mean, not {self.transform}")
        return self


class ModelKind(_Section):
    """Which kind of model is trained: a factor model, or one that it must beat."""

    kind: Literal[
        "als",
        "spectral",
        "blend",
        "popularity",
        "popularity_decayed",
        "adoptions_decayed",
        "item_knn",
        "frequent",
        "random",
    ] = "als"
    """als; spectral; both (blend); a column of gold.item_features; neighbours of the history; own frequent items."""
    neighbours: int = Field(default=50, ge=1, le=1000)
    """Nearest items that are kept of each item (item_knn)."""
    shrinkage: float = Field(default=10.0, ge=0)
    """Added to the denominator of a similarity, so that few common users say little (item_knn)."""
    seed: int = Field(default=1, ge=0)
    """Seed of chance (random)."""


class Als(_Section):
    """The factor model and its training."""

    rank: int = Field(default=64, ge=1, le=2048)
    """Width of the factors."""
    epochs: int = Field(default=16, ge=1, le=1000)
    """Epochs to train: each solves both sides once."""
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Stop before `epochs` as soon as an epoch improves the objective by less than this share; 0 never does."""
    objective: Literal["ials", "hu_koren_volinsky", "explicit"] = "ials"
    """What is fitted: implicit feedback in two forms (iALS; the confidences of MLlib's implicitPrefs), or ratings."""
    alpha0: float = Field(default=0.1, ge=0)
    """Weight of all cells, observed or not (ials)."""
    alpha: float = Field(default=1.0, gt=0)
    """Confidence that a unit of weight adds to the 1 of all cells (hu_koren_volinsky)."""
    baseline: Literal["none", "mean", "biases"] = "biases"
    """What is taken off ratings before they are fitted (explicit): nothing, their mean, or users' and items' too."""
    damping: float = Field(default=10.0, ge=0)
    """Ratings at the mean that each user and item is given when its bias is estimated."""
    regularization: float = Field(default=0.003, gt=0)
    """λ of λ·(n_u + alpha0·n_items)^nu (ials), or of λ·n_u^nu."""
    nu: float = Field(default=1.0, ge=0, le=1)
    """Exponent ν of the frequency scaling of the regularisation."""
    warm_start: Literal["none", "latest"] | Filled = "none"
    """Start from the factors of an earlier model of the same rank: a model id, or the latest that fits."""
    init_scale: float = Field(default=0.1, gt=0)
    """Initial factors are normal with standard deviation init_scale / √rank."""
    moving_side: Literal["auto", "users", "items"] = "auto"
    """The side whose factors travel each epoch; `auto` takes the smaller."""
    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    """Seed of the initial factors."""
    row_steps: int = Field(default=20, ge=1, le=1000)
    """Most CG steps for a row of the fixed side."""
    row_shortfall: float = Field(default=1e-4, gt=0, lt=1)
    """A row's CG stops once the objective can fall by no more than this share of what it fell by."""
    moving_steps: int = Field(default=5, ge=1, le=20)
    """Most CG steps of the moving side an epoch, each one a pass over the blocks."""
    moving_shortfall: float = Field(default=0.4, gt=0, lt=1)
    """The moving side's CG stops once the objective can fall by no more than this share of what it fell by."""
    block_interactions: int = Field(default=5_000_000, ge=1)
    """Interactions that a block holds on average at most."""
    min_blocks: int = Field(default=2, ge=1, le=100_000)
    """Blocks at the least: the parallelism of a small data set."""
    keep_every: int = Field(default=0, ge=0)
    """Keep the factors of every n-th epoch beside the last; 0 keeps only the last."""


class Spectral(_Section):
    """The spectral factors: singular vectors of interactions that are divided by users' and items' sums, to powers."""

    rank: int = Field(default=64, ge=1, le=2048)
    """Singular vectors to find."""
    user_exponent: float = Field(default=0.5, ge=0, le=1)
    """Exponent a of the sum of a user's weights, by which they are divided."""
    item_exponent: float = Field(default=0.5, ge=0, le=1)
    """Exponent b of the sum of an item's weights, by which they are divided."""
    tolerance: float = Field(default=0.01, gt=0, lt=1)
    """Stop once a step changes no squared singular value by more than this share."""
    steps: int = Field(default=50, ge=2, le=1000)
    """Steps at most, each one a pass over the blocks."""
    most_blocks: int = Field(default=4, ge=2, le=20)
    """Arrays of items × rank that the basis may hold before it is cut to one; more are fewer steps and more memory."""
    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    """Seed of the first directions."""


Popularity = Literal["popularity", "popularity_decayed", "adoptions_decayed"]


class Prior(_Section):
    """What is popular, added to the scores: xᵀy + weight · log(1 + popularity)."""

    weight: float = Field(default=0.0, ge=0)
    """Weight β of the prior for everyone."""
    popularity: Popularity = "adoptions_decayed"
    """Column of gold.item_features that says what is popular."""
    min_history: int = Field(default=0, ge=0)
    """Users with fewer items in their history get more of the prior: (1 − items / min_history) of `new_users`."""
    new_users: float = Field(default=0.0, ge=0)
    """Weight that is added for a user without history, and in part for those with little."""


class SpectralLists(_Section):
    """How spectral factors rank, and how they are blended with ALS; nothing of it needs a new training."""

    weight: float = Field(default=1.0, ge=0)
    """Weight of the spectral scores beside those of ALS (blend), once both are as large; 0 leaves ALS alone."""
    exponent: float | None = Field(default=None, ge=-2, le=2)
    """Exponent g of an item's sum of weights that its factors are multiplied by; without it spectral.item_exponent."""


class TopK(_Section):
    """The ranked lists."""

    k: int = Field(default=10, ge=1, le=10_000)
    """Length of a list."""
    hide_seen: bool | Annotated[tuple[str, ...], BeforeValidator(_as_list)] = True
    """Whether items of the user's history are left out: all, none, or those with events of the types listed."""
    repeat_weight: float = Field(default=0.0, ge=0)
    """Where seen items are not hidden: repeat_weight · log(1 + total weight) is added to the score of one of them."""
    repeat_prior: Duration | None = None
    """How long everyone's rate of coming back to an item counts beside the user's own total in it; none without it."""
    only_seen: bool = False
    """Whether only items of the user's own history are listed, as a list of what to buy again."""
    eligible: Filled | None = None
    """Spark SQL condition on silver.items that an item must satisfy to be listed: `attributes.in_stock = 'yes'`."""
    active_within: Duration | None = None
    """Only items with an event so long before as_of are listed."""
    allowed: Pairs | None = None
    """Pairs of user and item: the users in them are shown these items only."""
    blocked: Pairs | None = None
    """Pairs of user and item that are not shown."""
    most_of_category: int | None = Field(default=None, ge=1)
    """Most items of one category (items.columns.category) in a list."""
    prior: Prior = Prior()
    """What is popular, added to the scores."""
    popularity_exponent: float = Field(default=0.0, ge=-2, le=2)
    """Exponent γ: items' factors are multiplied by (1 + popularity)^γ, of `prior.popularity`, over its mean."""
    spectral: SpectralLists = SpectralLists()
    """How spectral factors rank, and how much they count beside ALS."""
    reasons: int = Field(default=0, ge=0, le=100)
    """Items of the history to name beside each listed item, those that contributed most to its score."""
    neighbours: int = Field(default=20, ge=1, le=1000)
    """Length of the lists of similar items."""
    neighbours_history: int = Field(default=500, ge=2, le=5_000)
    """Items of a user that count for co-occurrence at most; of more, as many by a hash of the pair."""
    chunk_interactions: int = Field(default=200_000_000, ge=1)
    """Interactions that are scored at once, about; a killed run goes on after the last chunk that it finished."""
    shortfall: float = Field(default=1e-6, gt=0, lt=1)
    """How exactly users' factors are solved from their histories at scoring time; as als.row_shortfall.

    Where users move, items' factors are solved as exactly at the end of training.
    """
    fallback: Popularity = "popularity"
    """The list for users without usable history."""


class Evaluation(_Section):
    """What is measured, on which events."""

    k: Lengths = (10,)
    """List lengths at which metrics are computed, the one that matters most first."""
    horizon: Duration | None = None
    """How long after as_of events count; without it, to the end of the log."""
    events: tuple[str, ...] | None = None
    """Event types that count as wanted; without it, all."""
    popularity_half_life: Duration | None = None
    """Half-life of the decayed popularity that models are compared with; without it, features.popularity_half_life."""
    new_items_only: bool = True
    """Whether only items that are new to the user count as wanted."""
    recall_divides_by: Literal["min_k_relevant", "relevant"] = "min_k_relevant"
    """Denominator of recall: min(k, relevant) or relevant."""
    report: bool = True
    """Whether to compare with the best baseline, or the champion, and to write reports/RUN_ID/report.html."""

    def metrics_of_a_user(self) -> int:
        """Return how many metrics a user has at most, at all lengths, new and repeated items apart where judged so."""
        times = 1 if self.new_items_only else 3
        return len(self.k) * (times * len(ACCURACY) + len(PROPERTIES))


class Gate(_Section):
    """What a model must show to become the champion (`evaluate --promote`); `ndcg` is at the first of evaluation.k."""

    primary: Metric = "ndcg"
    """The metric that a challenger must be better on."""
    least_gain: float = Field(default=0.0, ge=0, lt=1)
    """Share of the champion's mean that it must gain at least, shown with that confidence."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence of intervals; what it leaves to 1 is the level of tests."""
    guards: dict[Metric, Annotated[float, Field(ge=0, lt=1)]] = {"recall": 0.05}
    """By metric, the share of the champion's mean that a challenger may lose at most, shown with that confidence."""
    segment_margin: float = Field(default=0.05, ge=0, lt=1)
    """Share of the champion's mean of the primary metric that a segment may lose."""
    min_segment_users: int = Field(default=100, ge=2)
    """Users that a segment must have to be compared."""
    segments: int = Field(default=20, ge=1, le=200)
    """Segments of silver.users that are compared, the largest; the others are one together."""
    replicates: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap samples and sign patterns to draw."""
    power: float = Field(default=0.8, ge=0.5, lt=1)
    """How probably a difference as large as the minimum detectable one is found."""
    seed: int = Field(default=1, ge=0, le=2**31 - 1)
    """Seed of bootstrap samples and sign patterns."""

    def least_replicates(self, questions: int) -> int:
        """Return how many replicates it takes for one of so many questions, asked together, to have a sure answer.

        The smallest p is 1 / (replicates + 1), and Holm's the number of questions times that.
        """
        return math.ceil(round(questions / (1 - self.confidence), 6)) - 1


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] < value[1]:
        raise ValueError("must be two numbers above 0, the lower first")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


FactorKind = Literal["als", "spectral", "blend"]


class Tune(_Section):
    """The search for settings on windows of the past."""

    windows: int = Field(default=2, ge=1, le=20)
    """Windows before as_of, each as long as `horizon`; without time, random holdouts."""
    horizon: Duration | None = None
    """How long after a window's moment events count; without it evaluation.horizon, or 28 days."""
    step: Duration | None = None
    """From as_of back to the first window's moment, and from each to the next; without it the horizon. A day's, or a
    week's, has windows of hours or days like those that are to come, where nights, or weekends, are unlike the rest."""
    holdout: float = Field(default=0.2, gt=0, lt=1)
    """Share of each user's items that a window holds out, where the log has no time or the split is none by time."""
    users: int = Field(default=5000, ge=10, le=100_000)
    """Users of a window who are judged at most, chosen by a hash."""
    trials: int = Field(default=40, ge=1, le=10_000)
    """Trials at most."""
    minutes: float = Field(default=10, gt=0)
    """No trial but the first begins after so many minutes."""
    seed: int = Field(default=1, ge=0)
    """Seed of what is tried."""
    half_lives: tuple[Annotated[float, Field(gt=0)], ...] = (0.5, 1, 2, 4, 8)
    """Half-lives of weights to try, in horizons, beside none."""
    transforms: tuple[Literal["sum", "log1p", "binary"], ...] = ("sum", "log1p")
    """Values of features.transform to try."""
    ranks: tuple[Annotated[int, Field(ge=1, le=2048)], ...] = (32, 64, 128)
    """Values of als.rank to try."""
    epochs: Annotated[Lengths, AfterValidator(_ascending)] = (4, 8, 16)
    """Epochs after which a trial is judged, and may be stopped."""
    regularization: Range = (0.0003, 0.1)
    """Bounds of als.regularization."""
    alpha0: Range = (0.02, 3.0)
    """Bounds of als.alpha0."""
    nu: Range = (0.5, 1.0)
    """Bounds of als.nu."""
    popularity_half_lives: tuple[Annotated[float, Field(gt=0)], ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
    """Half-lives of popularity to try, in horizons, beside that of all time."""
    prior_weights: tuple[Annotated[float, Field(ge=0)], ...] = (
        0, 0.003, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2,
    )  # fmt: skip
    """Values of topk.prior.weight to try."""
    kinds: Annotated[tuple[FactorKind, ...], Field(min_length=1)] = ("als", "spectral", "blend")
    """Values of model.kind to choose from; ALS is tuned first, for it is a part of the blend."""
    spectral_ranks: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(min_length=1)] = (16, 32, 64, 128)
    """Values of spectral.rank to try; the largest is found once and the others are its leading part."""
    exponents: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)] = (0.4, 0.5)
    """Values of spectral.user_exponent and spectral.item_exponent to try, each with each."""
    list_exponents: Annotated[tuple[float, ...], Field(min_length=1)] = (0, 0.25, 0.5, 0.75)
    """Values of topk.spectral.exponent to try."""
    blend_weights: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.25, 0.5, 1, 2, 4)
    """Values of topk.spectral.weight to try."""
    popularity_exponents: Annotated[tuple[float, ...], Field(min_length=1)] = (0, 0.1, 0.2)
    """Values of topk.popularity_exponent to try."""
    repeat_priors: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0, 0.25, 1, 4)
    """Values of topk.repeat_prior to try, in horizons, with them."""
    repeat_weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0, 0.1, 0.3, 1, 3)
    """Values of topk.repeat_weight to try, where seen items may be listed and count as wanted."""


class Config(_Section):
    """A dataset and what is done with it."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Name of the dataset."""
    as_of: Time | None = None
    """Default of --as-of: events before it are past. Without either, just after the last event."""
    storage: Storage = Storage()
    source: Source
    holdout: Holdout | None = None
    items: Items | None = None
    users: Users | None = None
    friends: Friends | None = None
    features: Features = Features()
    model: ModelKind = ModelKind()
    als: Als = Als()
    spectral: Spectral = Spectral()
    topk: TopK = TopK()
    evaluation: Evaluation = Evaluation()
    tune: Tune = Tune()
    gate: Gate = Gate()

    def tuning_horizon(self) -> dt.timedelta:
        """Return how long each window lasts that settings are judged on."""
        return self.tune.horizon or self.evaluation.horizon or dt.timedelta(days=28)

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.source.columns.time is None:
            if self.features.half_life is not None:
                raise ValueError("features.half_life needs source.columns.time: the log has no time")
            if self.as_of is not None:
                raise ValueError("as_of needs source.columns.time: the log has no time")
            if self.topk.fallback != "popularity":
                raise ValueError(f"topk.fallback: {self.topk.fallback} needs source.columns.time")
            if self.source.heavy_users is not None and self.source.heavy_users.events_a_day is not None:
                raise ValueError("source.heavy_users.events_a_day needs source.columns.time: the log has no time")
            if self.topk.active_within is not None:
                raise ValueError("topk.active_within needs source.columns.time: the log has no time")
        if self.model.kind in ("spectral", "blend") and self.als.objective == "explicit":
            raise ValueError(f"model.kind: {self.model.kind} is for implicit feedback, not als.objective: explicit")
        if self.topk.popularity_exponent and self.als.objective == "explicit":
            raise ValueError("topk.popularity_exponent would scale the mean and the biases of als.objective: explicit")
        if self.als.objective == "explicit" and self.features.value != "multiply":
            raise ValueError("als.objective: explicit needs ratings: features.value: multiply")
        if (self.features.events is not None or self.features.hides) and self.source.columns.event is None:
            raise ValueError("features.events needs source.columns.event: the log has no event types")
        if self.holdout is not None and self.holdout.last is not None and self.source.columns.time is None:
            raise ValueError("holdout.last needs source.columns.time: the log has no time")
        named = {"of_users: categories": self.features.of_users, "of_items: category": self.features.of_items}
        for name, chosen in named.items():
            if name.split()[1] in chosen and (self.items is None or self.items.columns.category is None):
                raise ValueError(f"features.{name} needs items.columns.category")
        if "friends" in self.features.of_users and self.friends is None:
            raise ValueError("features.of_users: friends needs the section `friends`")
        sums = {f"{name}_{name_of(window)}": name for name in self.source.measures for window in self.features.windows}
        if taken := sorted(sums.keys() & self.source.measures.keys()):
            raise ValueError(f"source.measures: {taken[0]} is what a sum of {sums[taken[0]]} is called; rename it")
        if self.features.negative == "keep" and self.als.objective != "explicit":
            raise ValueError("features.negative: keep is for ratings: als.objective: explicit")
        if self.features.value != "ignore" and self.source.columns.value is None:
            raise ValueError(f"features.value: {self.features.value} needs source.columns.value: the log has no value")
        if not isinstance(self.topk.hide_seen, bool):
            unknown = sorted(set(self.topk.hide_seen) - set(self.features.events or ()))
            if unknown:
                raise ValueError(f"topk.hide_seen: {', '.join(unknown)} not among the event types of features.events")
        if self.topk.eligible is not None and self.items is None:
            raise ValueError("topk.eligible is a condition on what is known of items: it needs the section `items`")
        if self.topk.repeat_prior is not None and not (self.topk.repeat_weight and self.source.columns.time):
            raise ValueError("topk.repeat_prior needs topk.repeat_weight above 0 and source.columns.time")
        if self.topk.only_seen and self.topk.hide_seen is True:
            raise ValueError("topk.only_seen needs topk.hide_seen: false, or event types: nothing would be left")
        if self.topk.repeat_weight and self.topk.most_of_category is not None:
            raise ValueError("topk.repeat_weight and topk.most_of_category cannot be had together")
        if self.topk.most_of_category is not None and (self.items is None or self.items.columns.category is None):
            raise ValueError("topk.most_of_category needs items.columns.category")
        if self.tune.step is not None and self.tune.step < self.tuning_horizon():
            raise ValueError("tune.step is shorter than the horizon: the first window would end after as_of")
        segments = OWN_SEGMENTS + (self.gate.segments + 1 if self.users is not None else 0)
        metrics = self.evaluation.metrics_of_a_user()
        for questions, answer in ((segments, "segments harmed"), (metrics, "metrics changed")):
            least = self.gate.least_replicates(questions)
            if self.gate.replicates < least:
                raise ValueError(
                    f"gate.replicates: {self.gate.replicates} are too few to find any of {questions} {answer} at "
                    f"confidence {self.gate.confidence}: it takes {least}"
                )
        for name in (self.gate.primary, *self.gate.guards):
            _, at, k = name.partition("@")
            if at and int(k) not in self.evaluation.k:
                raise ValueError(f"gate: {name}: {k} is not among evaluation.k")
        return self


def load(path: str | Sequence[str], overrides: Sequence[str] = ()) -> Config:
    """Read configuration files, the later over the earlier, replace values by `key=value`, and check everything.

    Raises ConfigError, which names file, key, value and what is wrong with it, and UsageError for an
    override that is not `key=value`.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return checked(*read(paths, overrides), paths[-1])


def checked(raw: dict[str, Any], secrets: Secrets, path: str) -> Config:
    """Return what `read` found as a configuration; raise ConfigError, which names the last file, where it is none."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        explained = "; ".join(_explain(path, problem) for problem in error.errors())
        raise ConfigError(secrets.redacted(explained)) from error


def read(paths: Sequence[str], overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Secrets]:
    """Return what files and overrides say before it is checked, and the secrets in it."""
    raw: dict[str, Any] = {}
    for file in paths:
        _merge(raw, _read(file))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {redacted(override)}: write it as key=value, such as --set als.rank=64")
        keys = key.strip().split(".")
        shown = f"{key}={MASK}" if any(map(is_credential, keys)) else redacted(override)
        try:
            parsed = yaml.safe_load(value) if value else None
        except (yaml.YAMLError, ValueError):
            raise UsageError(f"--set {shown}: its value is not YAML; quote what is text") from None
        _set(raw, keys, parsed, shown)
    return raw, Secrets.of(raw)


def _read(path: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such configuration file; conf/ has examples") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML: {_yaml_problem(error)}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values")
    return raw


def _yaml_problem(error: Exception) -> str:
    """What is wrong with YAML and where, without the line itself, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return type(error).__name__
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', None) or 'cannot be read'}"


def _merge(raw: dict[str, Any], more: dict[str, Any]) -> None:
    """Set the values of another mapping in place, section by section."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(raw.get(key), dict):
            _merge(raw[key], value)
        else:
            raw[key] = value


def _set(raw: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    """Set a nested value in place; sections on the way are made where they are missing."""
    for key in keys[:-1]:
        raw = raw[key] if isinstance(raw.get(key), dict) else raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a section")
    raw[keys[-1]] = value


def _explain(path: str, problem: Any) -> str:
    """One problem as `file: key: value is …`."""
    key = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
    if problem["type"] == "extra_forbidden":
        return f"{path}: {key}: unknown key; docs/configuration.md lists the known ones"
    if problem["type"] == "missing":
        return f"{path}: {key}: missing, and has no default"
    message = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(problem["input"], dict) else f" {problem['input']!r}:"
    return f"{path}: {key}:{shown} {message[0].lower() + message[1:]}"
