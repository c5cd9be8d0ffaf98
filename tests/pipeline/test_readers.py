"""Published tables as other teams meet them: by the package deltalake, with the documented columns."""

from __future__ import annotations

import json
import re

import pytest
from deltalake import DeltaTable

from tests.pipeline.slice import ROOT
from tests.pipeline.support import PUBLISHED, Release

_NAMES = {"integer": "int", "long": "bigint"}


def _documented(table: str) -> dict[str, str]:
    """Column -> type of the table's section in docs/tables.md."""
    text = (ROOT / "docs" / "tables.md").read_text()
    (section,) = re.findall(rf"^### `{table}`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    cells = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return {name.strip(" `"): kind.strip() for name, kind in cells}


def _spell(kind: object) -> str:
    """A Delta type as the documentation writes it, which is how Spark does."""
    if isinstance(kind, str):
        return _NAMES.get(kind, kind)
    assert isinstance(kind, dict)
    if kind["type"] == "array":
        return f"array<{_spell(kind['elementType'])}>"
    if kind["type"] == "map":
        return f"map<{_spell(kind['keyType'])},{_spell(kind['valueType'])}>"
    return "struct<" + ",".join(f"{one['name']}:{_spell(one['type'])}" for one in kind["fields"]) + ">"


@pytest.mark.parametrize("name", PUBLISHED)
def test_schema_is_the_documented_one(release: Release, name: str) -> None:
    fields = json.loads(DeltaTable(str(release.warehouse / name)).schema().to_json())["fields"]
    assert {field["name"]: _spell(field["type"]) for field in fields} == _documented(name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_any_delta_reader_can_read_it(release: Release, name: str) -> None:
    table = DeltaTable(str(release.warehouse / name))
    protocol = table.protocol()
    assert protocol.min_reader_version == 1
    assert not protocol.reader_features
    assert table.to_pyarrow_table().num_rows > 0


def test_rows_of_one_user_are_found_by_a_filter(release: Release) -> None:
    table = DeltaTable(str(release.warehouse / "recommendations"))
    user = table.to_pyarrow_table(columns=["user_id"])["user_id"][0].as_py()
    best = table.to_pandas(filters=[("user_id", "=", user), ("rank", "<=", 3)]).sort_values("rank")
    assert list(best["rank"]) == [1, 2, 3]
    assert set(best["user_id"]) == {user}


def test_rows_lie_by_user_and_rank_within_a_file(release: Release) -> None:
    for file in DeltaTable(str(release.warehouse / "recommendations")).to_pyarrow_dataset().get_fragments():
        pairs = list(zip(*(file.to_table(columns=["user_id", "rank"]).to_pydict().values()), strict=True))
        assert pairs == sorted(pairs)
