"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFiles = Annotated[
    list[Path], typer.Option("--config", "-c", help="Configuration file; give it again to layer another over it.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Override one option: key=value, for example scoring.k=50.")
]
