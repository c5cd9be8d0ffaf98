"""The configuration: conf/base.yaml states the defaults and every option, and a mistake is one message that helps."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError

from recbatch.config import Config, load_config
from recbatch.config.cleaning import Rule
from recbatch.config.inputs import ItemAttribute, Missing, RawColumn, TimeFormat
from recbatch.errors import UsageError

CONF = Path(__file__).parents[2] / "conf"
BASE = CONF / "base.yaml"
MINIMAL = """
warehouse: data/warehouse
input:
  events:
    path: data/raw
    columns: {user_id: user, item_id: item, event_time: time}
"""


@pytest.fixture(name="minimal")
def write_minimal(tmp_path: Path) -> Path:
    return _write(tmp_path / "minimal.yaml", MINIMAL)


def _write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def _message(*arguments: Any) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(*arguments)
    assert caught.value.exit_code == 2
    return str(caught.value)


def _with_all_options() -> dict[str, Any]:
    """conf/base.yaml with the options without default taken in, as its head says."""
    text = re.sub(r"^(\s*)#(?=\S)", r"\1", BASE.read_text(), flags=re.MULTILINE)
    options = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items()}


def _required(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    return next((one for one in get_args(kind) if one is not NoneType and _inner_section(one) is not None), kind)


def _inner_section(kind: Any) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((found for one in get_args(kind) if (found := _inner_section(one)) is not None), None)


def _stated(kind: Any, value: Any) -> set[tuple[str, str]]:
    """The (section, option) pairs that `value`, of the type `kind`, states somewhere within it."""
    section, kind = _inner_section(kind), _required(kind)
    if section is None:
        return set()
    if get_origin(kind) in (dict, list):
        values = value.values() if isinstance(value, dict) else value
        return set().union(*(_stated(section, one) for one in values))
    if not isinstance(value, dict):  # a bare name
        return set()
    fields = section.model_fields
    inner = [_stated(fields[name].annotation, one) for name, one in value.items()]
    return {(section.__name__, name) for name in value}.union(*inner)


def _all_sections(section: type[BaseModel]) -> set[type[BaseModel]]:
    inner = (_inner_section(field.annotation) for field in section.model_fields.values())
    return {section}.union(*(_all_sections(one) for one in inner if one is not None))


def test_base_states_the_defaults(minimal: Path) -> None:
    assert load_config([BASE, minimal]) == load_config([minimal])


def test_base_states_every_option_as_a_key_or_a_commented_example() -> None:
    wanted = {(section.__name__, name) for section in _all_sections(Config) for name in section.model_fields}
    assert ("RawColumn", "sql") in wanted
    assert ("NeighboursSection", "half_life_days") in wanted
    assert wanted - _stated(Config, _with_all_options()) == set()


def test_base_has_a_value_for_every_option_with_a_default() -> None:
    """An option that is only commented would not be compared with its default."""
    written = yaml.safe_load(BASE.read_text())
    sections = {name: _inner_section(field.annotation) for name, field in Config.model_fields.items()}
    for name, section in sections.items():
        if name in ("warehouse", "input"):
            assert name not in written
        elif section is not None:
            assert written[name].keys() == section.model_fields.keys()
        else:
            assert name in written


def test_base_is_a_configuration_with_its_examples_taken_in() -> None:
    config = Config.model_validate(_with_all_options())
    assert config.input.items is not None
    assert config.input.events.format == config.input.items.format == "csv"
    assert config.input.events.time == TimeFormat(earliest="2015-01-01", latest="2030-01-01")
    assert config.input.items.attributes["tags"].missing == Missing(strategy="constant", value="untagged")
    assert config.input.events.types() == ["purchase", "view"]


def test_every_option_of_base_has_a_comment() -> None:
    """Above it, or above the options of the same kind right before it."""
    lines = BASE.read_text().splitlines()
    option = re.compile(r"(\s*)#?[a-z_]+:")
    for number, (before, line) in enumerate(pairwise(lines), 2):
        found, sibling = option.match(line), option.match(before)
        if found and not before.lstrip().startswith("# "):
            assert sibling, f"line {number} of base.yaml has no comment: {line}"
            assert sibling.group(1) == found.group(1), f"line {number} of base.yaml has no comment: {line}"


@pytest.mark.parametrize("files", [["demo.yaml"], ["demo.yaml", "cluster.yaml"]])
def test_the_shipped_configurations_load(files: list[str]) -> None:
    config = load_config([CONF / name for name in files])
    assert config.input.events.types() == ["purchase"]
    assert (config.spark.packages == "provided") == ("cluster.yaml" in files)


def test_later_layers_count(tmp_path: Path, minimal: Path) -> None:
    first = _write(tmp_path / "first.yaml", "scoring: {k: 10, default_k: 10}\nseed: 1\n")
    second = _write(tmp_path / "second.yaml", "scoring: {k: 20}\n")
    config = load_config([minimal, first, second], ["scoring.k=30", "scoring.k=40"])
    assert (config.scoring.k, config.scoring.default_k, config.seed) == (40, 10, 1)
    assert load_config([minimal, second, first]).scoring.k == 10


def test_a_list_replaces_the_list_below(tmp_path: Path, minimal: Path) -> None:
    layer = _write(tmp_path / "layer.yaml", "cleaning: {rules: [{reason: bulk, when: quantity > 99}]}\n")
    assert load_config([BASE, minimal, layer]).cleaning.rules == [Rule(reason="bulk", when="quantity > 99")]


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ("total", {"sql": "total / 2"}, RawColumn(sql="total / 2")),
        ({"column": "total"}, {"sql": "total / 2"}, RawColumn(sql="total / 2")),
        ({"sql": "total / 2"}, "total", RawColumn(column="total")),
        ({"constant": "1"}, {"column": "total"}, RawColumn(column="total")),
    ],
)
def test_a_raw_column_replaces_the_one_below(
    tmp_path: Path, minimal: Path, below: Any, above: Any, expected: RawColumn
) -> None:
    layers = [
        _write(tmp_path / f"{name}.yaml", yaml.safe_dump({"input": {"events": {"columns": {"price": price}}}}))
        for name, price in (("below", below), ("above", above))
    ]
    assert load_config([minimal, *layers]).input.events.columns.price == expected


def test_a_strategy_replaces_the_one_below(tmp_path: Path, minimal: Path) -> None:
    layer = _write(tmp_path / "layer.yaml", "cleaning: {quantity: {strategy: median}}\n")
    assert load_config([BASE, minimal, layer]).cleaning.quantity == Missing(strategy="median")


def test_sections_of_other_layers_stay(tmp_path: Path, minimal: Path) -> None:
    items = "input: {items: {path: items, item_id: id, attributes: {brand: {source: b}, size: {source: s}}}}\n"
    layer = _write(tmp_path / "items.yaml", items)
    config = load_config([minimal, layer], ["input.items.attributes.size={source: width, kind: number}"])
    assert config.input.items is not None
    assert config.input.items.attributes["brand"] == ItemAttribute(source=RawColumn(column="b"))
    assert config.input.items.attributes["size"] == ItemAttribute(source=RawColumn(column="width"), kind="number")
    assert config.input.events.path == "data/raw"


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("scoring.k=50", "scoring.k", 50),
        ("training.learning_rate=1e-4", "training.learning_rate", 1e-4),
        ("model.fused=false", "model.fused", False),
        ("training.threads=null", "training.threads", None),
        ("warehouse=s3a://bucket/my folder?a=b", "warehouse", "s3a://bucket/my folder?a=b"),
        ("input.events.time.format=dd.MM.yyyy HH:mm", "input.events.time.format", "dd.MM.yyyy HH:mm"),
        ("input.events.time.earliest=2017-01-01", "input.events.time.earliest", "2017-01-01"),
        ("input.events.columns.price.sql=a = b", "input.events.columns.price.sql", "a = b"),
        ("evaluation.cutoffs=[5, 10]", "evaluation.cutoffs", [5, 10]),
        ("cleaning.price={strategy: constant, value: 2}", "cleaning.price.value", 2.0),
        ("cleaning.rules=[]", "cleaning.rules", []),
        ("cleaning.rules=[{reason: x, when: 'price = 3'}]", "cleaning.rules", [Rule(reason="x", when="price = 3")]),
        ("spark.settings={spark.executor.memory: 8g}", "spark.settings", {"spark.executor.memory": "8g"}),
        ("spark.settings[spark.executor.memory]=8g", "spark.settings", {"spark.executor.memory": "8g"}),
    ],
)
def test_override(minimal: Path, override: str, path: str, expected: object) -> None:
    value: Any = load_config([minimal], [override])
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected


# Letters, digits and what stands in paths and addresses, within which YAML reads nothing but text.
_PATH = st.from_regex(r"[a-z]{2}[a-zA-Z0-9_./=&?%+-]{0,20}[a-z] [a-z]{3}", fullmatch=True)


@given(path=_PATH)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_an_override_keeps_text_as_it_is(minimal: Path, path: str) -> None:
    assert load_config([minimal], [f"warehouse={path}"]).warehouse == path


@pytest.mark.parametrize("override", ["scoring.k", "=5", "", "scoring.k = 5", "scoring k=5", "scoring.k: 5=5"])
def test_an_override_without_a_key_and_a_value_is_refused(minimal: Path, override: str) -> None:
    message = _message([minimal], [override])
    assert f"override '{override}' is not of the form key=value" in message
    assert "scoring.k=50" in message


def test_an_override_that_is_not_yaml_is_refused(minimal: Path) -> None:
    assert "'evaluation.cutoffs=[1'" in _message([minimal], ["evaluation.cutoffs=[1"])


@pytest.mark.parametrize(
    ("override", "unknown", "meant"),
    [
        ("sorcing.k=5", "sorcing", "scoring"),
        ("scoring.filter_view=true", "scoring.filter_view", "scoring.filter_viewed"),
        ("features.neighbours.windw=5", "features.neighbours.windw", "features.neighbours.window"),
        ("input.events.columns.userid=u", "input.events.columns.userid", "input.events.columns.user_id"),
        (
            "input.items={path: p, item_id: i, attributes: {size: {source: s, kidn: number}}}",
            "input.items.attributes.size.kidn",
            "input.items.attributes.size.kind",
        ),
        ("cleaning.rules=[{reason: x, wehn: y, when: y}]", "cleaning.rules.0.wehn", "cleaning.rules.0.when"),
    ],
)
def test_an_unknown_option_is_named_with_the_near_one(minimal: Path, override: str, unknown: str, meant: str) -> None:
    message = _message([minimal], [override])
    assert f"unknown option '{unknown}', did you mean '{meant}'?" in message
    assert str(minimal) in message


def test_an_unknown_option_that_is_near_to_none_is_named(minimal: Path) -> None:
    message = _message([minimal], ["scoring.zzzzzz=5"])
    assert "unknown option 'scoring.zzzzzz'" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("scoring.k=many", ("'scoring.k'", "integer", "'many'")),
        ("scoring.k=0", ("'scoring.k'", "greater than or equal to 1", "0")),
        ("scoring=5", ("'scoring'", "ScoringSection", "5")),
        ("model.dropout=1.0", ("'model.dropout'", "less than 1", "1.0")),
        ("pipeline=My Shop", ("'pipeline'", "'My Shop'")),
        ("input.events.format=xlsx", ("'input.events.format'", "'csv'", "'xlsx'")),
        ("cleaning.price={strategy: constant, value: [1]}", ("'cleaning.price.value'", "[1]")),
        ("cleaning.rules=[{reason: Not A Code, when: x}]", ("'cleaning.rules.0.reason'", "'Not A Code'")),
    ],
)
def test_a_value_that_does_not_fit_is_named(minimal: Path, override: str, parts: tuple[str, ...]) -> None:
    message = _message([minimal], [override])
    assert [part for part in parts if part not in message] == []


def test_required_options_are_named_without_the_rest_of_the_file(tmp_path: Path) -> None:
    file = _write(tmp_path / "no_columns.yaml", "warehouse: w\ninput: {events: {path: p, columns: {}}}\n")
    message = _message([file])
    for name in ("user_id", "item_id", "event_time"):
        assert f"'input.events.columns.{name}' must be set" in message
    assert "got" not in message
    assert "'warehouse' must be set" in _message([])


def test_a_missing_file_is_named(tmp_path: Path, minimal: Path) -> None:
    missing = tmp_path / "nowhere.yaml"
    assert f"'{missing}' does not exist" in _message([minimal, missing])


@pytest.mark.parametrize(
    "content",
    [b"scoring: {k: 5", b"- scoring\n- k\n", b"5", b"scoring:\n\tk: 5\n", b"\xff\xfe\x00", b"seed: 1\nseed: 2\n"],
)
def test_a_file_that_is_no_mapping_of_options_is_named(tmp_path: Path, minimal: Path, content: bytes) -> None:
    file = tmp_path / "broken.yaml"
    file.write_bytes(content)
    assert f"configuration file '{file}'" in _message([minimal, file])


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert f"'{tmp_path}' cannot be read" in _message([tmp_path])


def test_an_empty_file_changes_nothing(tmp_path: Path, minimal: Path) -> None:
    assert load_config([minimal, _write(tmp_path / "empty.yaml", "# nothing\n")]) == load_config([minimal])


def test_values_may_refer_to_the_environment_and_to_options(monkeypatch: pytest.MonkeyPatch, minimal: Path) -> None:
    monkeypatch.setenv("SHOP_WAREHOUSE", "elsewhere")
    config = load_config([minimal], ["pipeline=shop", "warehouse=${oc.env:SHOP_WAREHOUSE}/${pipeline}"])
    assert config.warehouse == "elsewhere/shop"


@pytest.mark.parametrize("value", ["${oc.env:RECBATCH_IS_NOT_SET}", "${no_such_option}", "???"])
def test_a_value_that_cannot_be_resolved_is_named(minimal: Path, value: str) -> None:
    assert "option 'warehouse' cannot be resolved" in _message([minimal], [f"warehouse={value}"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("drop", Missing(strategy="drop")),
        ({"strategy": "constant", "value": 0}, Missing(strategy="constant", value=0.0)),
        ({"strategy": "constant", "value": "none"}, Missing(strategy="constant", value="none")),
        ({"strategy": "group_mean", "by": "brand"}, Missing(strategy="group_mean", by="brand")),
        ({"strategy": "knn", "neighbours": 9}, Missing(strategy="knn", neighbours=9)),
        ("knn", Missing(strategy="knn")),
    ],
)
def test_missing_values_have_a_strategy(value: object, expected: Missing) -> None:
    assert Missing.model_validate(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "constant",
        {"strategy": "constant"},
        {"strategy": "mean", "value": 1},
        "forget",
        "group_mean",
        {"strategy": "mean", "by": "brand"},
        {"strategy": "regression", "neighbours": 5},
    ],
    ids=str,
)
def test_what_a_strategy_needs_belongs_to_it_alone(value: object) -> None:
    with pytest.raises(ValidationError, match="strategy"):
        Missing.model_validate(value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"source": "s", "missing": "mean"}, "missing strategy 'mean' is for numbers"),
        ({"source": "s", "missing": "median"}, "missing strategy 'median' is for numbers"),
        ({"source": "s", "kind": "number", "separator": ","}, "'separator' is for categories"),
        ({"source": "s", "kind": "number", "missing": {"strategy": "constant", "value": "x"}}, "must be a number"),
        ({"source": "s", "missing": {"strategy": "group_mean", "by": "b"}}, "'group_mean' is for numbers"),
        ({"source": "s", "separator": ",", "missing": "knn"}, "'knn' gives one value"),
        ({"source": "s", "kind": "text", "separator": " "}, "'separator' is for categories; a text has one value"),
        ({"source": "s", "kind": "text", "missing": "mode"}, "'mode' is not for a text; use keep, drop, constant"),
        ({"source": "s", "kind": "text", "missing": "knn"}, "'knn' is not for a text"),
        ({"source": "s", "kind": "text", "ngrams": 0}, "ngrams"),
        ({"source": "s", "ngrams": 2}, "'ngrams' and 'buckets' go with the kind 'text'"),
        ({"source": "s", "kind": "number", "buckets": 100}, "'ngrams' and 'buckets' go with the kind 'text'"),
        ({"source": "s", "kind": "vector"}, "'size', how many numbers a vector has, goes with the kind 'vector'"),
        ({"source": "s", "size": 3}, "'size', how many numbers a vector has, goes with the kind 'vector'"),
        ({"source": "s", "kind": "vector", "size": 3, "missing": "mean"}, "'mean' is not for a vector; use keep, drop"),
        (
            {"source": "s", "kind": "vector", "size": 3, "missing": {"strategy": "constant", "value": 0}},
            "'constant' is not for a vector",
        ),
        ({"source": "s", "kind": "vector", "size": 3, "separator": ","}, "'separator' is for categories; a vector has"),
        ({"source": {"column": "a", "sql": "b"}}, "exactly one"),
        ({"source": {}}, "exactly one"),
    ],
)
def test_an_attribute_that_contradicts_itself_is_refused(value: object, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ItemAttribute.model_validate(value)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("cleaning.price=knn", "'price' of an event can be missing in these ways"),
        ("cleaning.query=mode", "'query' of an event can be missing in these ways: keep, drop or constant"),
        ("cleaning.price={strategy: group_mean, by: user_id}", "no group 'user_id'; use by: item_id"),
        ("cleaning.weight={strategy: constant, value: much}", "'much' of 'weight' must be a number"),
        ("features.item_price=knn", "'item_price' is to be filled from the other attributes, and there is none"),
        ("features.item_price={strategy: group_mean, by: brand}", "each 'brand', which is none of []"),
        (
            "input.items={path: p, item_id: i, attributes: {size: {source: s, kind: number, missing: knn}}}",
            "'size' is to be filled from the other attributes, and there is none",
        ),
        (
            "input.items={path: p, item_id: i, attributes: {a: {source: a}, n: {source: n, kind: number, "
            "missing: {strategy: group_mean, by: n}}}}",
            "each 'n', which is none of ['a']",
        ),
        (
            "input.items={path: p, item_id: i, attributes: {t: {source: t, kind: text}, n: {source: n, kind: number, "
            "missing: {strategy: group_mean, by: t}}}}",
            "each 't', which is none of []",
        ),
        (
            "input.items={path: p, item_id: i, attributes: {t: {source: t, kind: text}, n: {source: n, kind: number, "
            "missing: regression}}}",
            "'n' is to be filled from the other attributes, and there is none",
        ),
        (
            "input.items={path: p, item_id: i, attributes: {v: {source: v, kind: vector, size: 2}, c: {source: c, "
            "missing: knn}}}",
            "'c' is to be filled from the other attributes, and there is none",
        ),
    ],
)
def test_a_strategy_that_cannot_be_followed_is_refused(minimal: Path, override: str, problem: str) -> None:
    assert problem in _message([minimal], [override])


def test_every_column_of_an_event_that_may_be_missing_has_a_strategy(minimal: Path) -> None:
    layer = ["cleaning.price={strategy: group_mean, by: item_id}", "cleaning.query={strategy: constant, value: none}"]
    missing = load_config([minimal], layer).cleaning.missing()
    assert {name: one.strategy for name, one in missing.items()} == {
        "quantity": "constant",
        "price": "group_mean",
        "weight": "constant",
        "basket_id": "keep",
        "query": "constant",
    }


def test_an_event_type_column_needs_a_mapping(minimal: Path) -> None:
    column = "input.events.columns.event_type=action"
    assert "'event_types' must map" in _message([minimal], [column])
    config = load_config([minimal], [column, "input.events.event_types={v: view, o: purchase, p: purchase}"])
    assert config.input.events.types() == ["purchase", "view"]


def test_the_configuration_does_not_change(minimal: Path) -> None:
    config = load_config([minimal])
    with pytest.raises(ValidationError):
        config.seed = 8
