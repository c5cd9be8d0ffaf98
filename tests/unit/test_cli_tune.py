"""The commands that train to compare refuse what they cannot use before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from recbatch.cli import main
from recbatch.errors import UsageError


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(
        f"warehouse: {tmp_path}/warehouse\n"
        "input: {events: {path: raw, columns: {user_id: u, item_id: i, event_time: t}}}\n"
    )
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said by a command that ends with the code for usage errors."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == UsageError.exit_code
    return capsys.readouterr().err


@pytest.mark.parametrize("command", ["tune", "learning-curve"])
def test_an_output_in_the_warehouse_is_refused(
    command: str, configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "warehouse" / "tuning"
    said = refused(capsys, command, "--config", str(configuration), "--output", str(output))
    assert f"lies in the warehouse {tmp_path}/warehouse" in said
    assert not output.exists()


@pytest.mark.parametrize("command", ["tune", "learning-curve"])
def test_an_output_that_is_a_file_is_refused(
    command: str, configuration: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, command, "--config", str(configuration), "--output", str(configuration))
    assert "cannot be written" in said


@pytest.mark.parametrize("shares", ["0.5,2", "0,1", "half", ""])
def test_shares_that_are_none_are_refused(
    shares: str, configuration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(configuration), "--output", str(tmp_path / "curve"), "--shares", shares]
    assert f"--shares '{shares}'" in refused(capsys, "learning-curve", *arguments)
    assert not (tmp_path / "curve").exists()


@pytest.mark.parametrize(
    ("command", "options"), [("tune", ("--trials", "--minutes", "--output")), ("learning-curve", ("--shares",))]
)
def test_help_shows_options_and_an_example(
    command: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert [option for option in options if option not in text] == []
    assert f"Example: recbatch {command} --config conf/demo.yaml" in " ".join(text.split())
