"""What a training that was interrupted goes on from: one file, replaced after every epoch, whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_DESCRIPTION = "description"


@dataclass(frozen=True)
class Checkpoint:
    """tensors and others: the state of a `Run`. best: the weights of the best epoch. curve: a row an epoch, as JSON."""

    tensors: dict[str, Tensor]
    others: dict[str, Any]
    best: dict[str, Tensor]
    curve: list[list[float]]

    def write(self, path: Path, fingerprint: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        everything = {f"state.{name}": one.contiguous().clone() for name, one in self.tensors.items()}
        everything |= {f"best.{name}": one.contiguous().clone() for name, one in self.best.items()}
        description = json.dumps({"fingerprint": fingerprint, "others": self.others, "curve": self.curve})
        save_file(everything, staged, metadata={_DESCRIPTION: description})
        os.replace(staged, path)

    @classmethod
    def read(cls, path: Path, fingerprint: str) -> Checkpoint | None:
        """None where there is none of this very training, or the file is damaged: then it begins anew."""
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                description = json.loads(file.metadata()[_DESCRIPTION])
                if description["fingerprint"] != fingerprint:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, ValueError, KeyError):
            return None
        state = {name.removeprefix("state."): one for name, one in tensors.items() if name.startswith("state.")}
        best = {name.removeprefix("best."): one for name, one in tensors.items() if name.startswith("best.")}
        return cls(state, description["others"], best, description["curve"])
