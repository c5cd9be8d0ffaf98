"""The Spark schema of every table: the contract that a write is checked against before it starts."""

from __future__ import annotations

from pyspark.sql import types as t

from recbatch.tables import columns as c
from recbatch.tables.spec import DOUBLE as _DOUBLE
from recbatch.tables.spec import FLOAT as _FLOAT
from recbatch.tables.spec import INT as _INT
from recbatch.tables.spec import LONG as _LONG
from recbatch.tables.spec import STRING as _STRING
from recbatch.tables.spec import TIME as _TIME
from recbatch.tables.spec import TableSpec as TableSpec
from recbatch.tables.spec import list_of as _list
from recbatch.tables.spec import map_of as _map
from recbatch.tables.spec import spec as _spec
from recbatch.tables.spec import struct as _struct

EVENTS = _spec(
    "events",
    partition_by=(c.EVENT_DATE,),
    user_id=_STRING,
    item_id=_STRING,
    event_type=_STRING,
    event_time=_TIME,
    event_date=t.DateType(),
    quantity=_DOUBLE,
    price=_DOUBLE,
    weight=_DOUBLE,
    basket_id=_STRING,
    query=_STRING,
    imputed=_list(_STRING),
    source_file=_STRING,
    run_id=_STRING,
)

_ITEM_COLUMNS: dict[str, t.DataType] = {
    c.ITEM_ID: _STRING,
    c.TITLE: _STRING,
    c.CATEGORIES: _map(_list(_STRING)),
    c.NUMBERS: _map(_DOUBLE),
    c.VECTORS: _map(_list(_FLOAT)),
    c.IMPUTED: _list(_STRING),
    c.VALID_FROM: _TIME,
    c.VALID_TO: _TIME,
    c.SOURCE_FILE: _STRING,
    c.RUN_ID: _STRING,
}
ITEMS = TableSpec("items", _struct(**_ITEM_COLUMNS))
ITEM_HISTORY = TableSpec("item_history", _struct(**_ITEM_COLUMNS, known_from=_TIME))
IMPUTATIONS = _spec(
    "imputations",
    table_name=_STRING,
    column_name=_STRING,
    strategy=_STRING,
    value=_STRING,
    group=_STRING,
    rows=_LONG,
    run_id=_STRING,
)


def _rejected(name: str) -> TableSpec:
    return _spec(name, raw_record=_STRING, reasons=_list(_STRING), source_file=_STRING, run_id=_STRING)


REJECTED_EVENTS = _rejected("rejected_events")
REJECTED_ITEMS = _rejected("rejected_items")

BOTS = _spec("bots", user_id=_STRING, reasons=_list(_STRING), run_id=_STRING)
DATA_QUALITY = _spec(
    "data_quality",
    run_id=_STRING,
    metric=_STRING,
    subject=_STRING,
    event_date=t.DateType(),
    value=_DOUBLE,
)

ITEM_INDEX = _spec("item_index", item_id=_STRING, item_idx=_INT, run_id=_STRING)
CATEGORY_INDEX = _spec("category_index", field=_STRING, value=_STRING, code=_INT, run_id=_STRING)

_SEQUENCE_COLUMNS: dict[str, t.DataType] = {
    c.USER_ID: _STRING,
    c.USER_BUCKET: _INT,
    c.ITEM_IDX: _list(_INT),
    c.EVENT_TYPE: _list(_INT),
    c.EVENT_TIME: _list(_LONG),
    c.PRICE: _list(_FLOAT),
    c.QUANTITY: _list(_FLOAT),
    c.SEEN: _list(_INT),
}
_FEATURE_COLUMNS: dict[str, t.DataType] = {
    c.ITEM_IDX: _INT,
    c.ITEM_ID: _STRING,
    c.CATEGORIES: _list(_list(_INT)),
    c.NUMBERS: _list(_FLOAT),
    c.VECTORS: _list(_FLOAT),
    c.ELIGIBLE: t.BooleanType(),
}
_NORMALIZATION_COLUMNS: dict[str, t.DataType] = {
    c.TABLE_NAME: _STRING,
    c.COLUMN_NAME: _STRING,
    c.METHOD: _STRING,
    c.CENTER: _DOUBLE,
    c.SCALE: _DOUBLE,
    c.FILL: _DOUBLE,
    c.AS_OF: _TIME,
    c.RUN_ID: _STRING,
}
_NEIGHBOUR_COLUMNS: dict[str, t.DataType] = {
    c.ITEM_IDX: _INT,
    c.NEIGHBOURS: _list(_INT),
    c.WEIGHTS: _list(_FLOAT),
}

_POPULARITY_COLUMNS: dict[str, t.DataType] = {
    c.ITEM_IDX: _INT,
    c.POPULARITY: _LONG,
    c.RECENT_POPULARITY: _LONG,
}

# Three cuts of the same features: what is released, what a test may know, and what a validation may know.
USER_SEQUENCES = TableSpec("user_sequences", _struct(**_SEQUENCE_COLUMNS), (c.USER_BUCKET,))
ITEM_FEATURES = TableSpec("item_features", _struct(**_FEATURE_COLUMNS))
NORMALIZATION = TableSpec("normalization", _struct(**_NORMALIZATION_COLUMNS))
ITEM_NEIGHBOURS = TableSpec("item_neighbours", _struct(**_NEIGHBOUR_COLUMNS))
EVALUATION_USER_SEQUENCES = TableSpec("evaluation_user_sequences", _struct(**_SEQUENCE_COLUMNS), (c.USER_BUCKET,))
EVALUATION_ITEM_FEATURES = TableSpec("evaluation_item_features", _struct(**_FEATURE_COLUMNS))
EVALUATION_NORMALIZATION = TableSpec("evaluation_normalization", _struct(**_NORMALIZATION_COLUMNS))
EVALUATION_ITEM_NEIGHBOURS = TableSpec("evaluation_item_neighbours", _struct(**_NEIGHBOUR_COLUMNS))
VALIDATION_ITEM_NEIGHBOURS = TableSpec("validation_item_neighbours", _struct(**_NEIGHBOUR_COLUMNS))
ITEM_POPULARITY = TableSpec("item_popularity", _struct(**_POPULARITY_COLUMNS))
EVALUATION_ITEM_POPULARITY = TableSpec("evaluation_item_popularity", _struct(**_POPULARITY_COLUMNS))
VALIDATION_ITEM_POPULARITY = TableSpec("validation_item_popularity", _struct(**_POPULARITY_COLUMNS))
EVALUATION_TARGETS = _spec(
    "evaluation_targets", partition_by=(c.USER_BUCKET,), user_id=_STRING, user_bucket=_INT, targets=_list(_INT)
)
SNAPSHOTS = _spec("snapshots", snapshot=_STRING, as_of=_TIME, run_id=_STRING)
# What `user_sequences` is too short for, so that the two together hold everybody's whole past.
_EARLIER_COLUMNS = {name: of for name, of in _SEQUENCE_COLUMNS.items() if name != c.SEEN}
EARLIER_BEHAVIOURS = TableSpec("earlier_behaviours", _struct(**_EARLIER_COLUMNS), (c.USER_BUCKET,))
FEATURE_STATE = _spec(
    "feature_state",
    signature=_STRING,
    events_version=_LONG,
    table_versions=_map(_LONG),
    as_of=_TIME,
    evaluation_as_of=_TIME,
    complete=t.BooleanType(),
    unindexed_events=_LONG,
    run_id=_STRING,
)

CANDIDATES = _spec(
    "candidates",
    model_version=_STRING,
    sequence_number=_LONG,
    path=_STRING,
    metrics=_map(_DOUBLE),
    as_of=_TIME,
    run_id=_STRING,
)
MODELS = _spec(
    "models",
    model_version=_STRING,
    sequence_number=_LONG,
    path=_STRING,
    status=_STRING,
    metrics=_map(_DOUBLE),
    as_of=_TIME,
    run_id=_STRING,
)
EVALUATIONS = _spec(
    "evaluations",
    model_version=_STRING,
    scorer=_STRING,
    target_kind=_STRING,
    slice=_STRING,
    metric=_STRING,
    mean=_DOUBLE,
    low=_DOUBLE,
    high=_DOUBLE,
    users=_LONG,
    as_of=_TIME,
    run_id=_STRING,
)

_RECOMMENDATION_COLUMNS: dict[str, t.DataType] = {
    c.USER_ID: _STRING,
    c.RANK: _INT,
    c.ITEM_ID: _STRING,
    c.SCORE: _FLOAT,
    c.BECAUSE_ITEM_ID: _STRING,
    c.REASON: _STRING,
    c.MODEL_VERSION: _STRING,
    c.AS_OF: _TIME,
    c.RUN_ID: _STRING,
    c.USER_BUCKET: _INT,
}
_DEFAULT_COLUMNS: dict[str, t.DataType] = {
    c.SEGMENT: _STRING,
    c.RANK: _INT,
    c.ITEM_ID: _STRING,
    c.SCORE: _FLOAT,
    c.REASON: _STRING,
    c.AS_OF: _TIME,
    c.RUN_ID: _STRING,
}
# The fingerprint tells which users have changed since, the version which buckets a killed run has scored already.
# The version is a partition because it is the same in every row of a bucket: so it takes neither time nor space.
STAGED_RECOMMENDATIONS = _spec(
    "staged_recommendations",
    partition_by=(c.USER_BUCKET, c.TXN_VERSION),
    user_id=_STRING,
    rank=_INT,
    item_id=_STRING,
    score=_FLOAT,
    because_item_id=_STRING,
    reason=_STRING,
    user_fingerprint=_LONG,
    user_bucket=_INT,
    txn_version=_LONG,
)
# The best users of an item among those of one task; `staged_audiences` is made of them.
STAGED_AUDIENCE_PARTS = _spec(
    "staged_audience_parts",
    partition_by=(c.USER_BUCKET, c.TXN_VERSION),
    item_id=_STRING,
    score=_FLOAT,
    user_id=_STRING,
    user_bucket=_INT,
    txn_version=_LONG,
)
STAGED_AUDIENCES = _spec("staged_audiences", item_id=_STRING, rank=_INT, user_id=_STRING, score=_FLOAT)
STAGED_SCORING = _spec(
    "staged_scoring", model_version=_STRING, scorer_digest=_STRING, as_of=_TIME, run_id=_STRING, txn_version=_LONG
)
STAGED_DEFAULT_RECOMMENDATIONS = TableSpec("staged_default_recommendations", _struct(**_DEFAULT_COLUMNS))
RECOMMENDATIONS = TableSpec("recommendations", _struct(**_RECOMMENDATION_COLUMNS), (c.USER_BUCKET,), published=True)
DEFAULT_RECOMMENDATIONS = TableSpec("default_recommendations", _struct(**_DEFAULT_COLUMNS), published=True)
RECOMMENDATIONS_BY_USER = _spec(
    "recommendations_by_user",
    partition_by=(c.USER_BUCKET,),
    published=True,
    user_id=_STRING,
    recommendations=_list(_struct(rank=_INT, item_id=_STRING, score=_FLOAT, because_item_id=_STRING, reason=_STRING)),
    model_version=_STRING,
    as_of=_TIME,
    run_id=_STRING,
    user_bucket=_INT,
)

RUNS = _spec(
    "runs",
    run_id=_STRING,
    stage=_STRING,
    status=_STRING,
    fingerprint=_STRING,
    txn_version=_LONG,
    started_at=_TIME,
    finished_at=_TIME,
    inputs=_map(_STRING),
    outputs=_map(_LONG),
    row_counts=_map(_LONG),
    figures=_map(_DOUBLE),
    configuration=_STRING,
    message=_STRING,
    code_version=_STRING,
)
LEASES = _spec("leases", stage=_STRING, owner=_STRING, expires_at=_LONG)
RELEASES = _spec(
    "releases",
    published=True,
    release_id=_STRING,
    published_at=_TIME,
    as_of=_TIME,
    model_version=_STRING,
    table_versions=_map(_LONG),
    gates=_list(_struct(gate=_STRING, value=_DOUBLE, limit=_DOUBLE, passed=t.BooleanType())),
    run_id=_STRING,
)

ALL: dict[str, TableSpec] = {spec.name: spec for spec in list(globals().values()) if isinstance(spec, TableSpec)}
