"""How the inner loops that neither torch nor numpy has are compiled: by numba, on first use, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` as machine code that releases the interpreter's lock; IEEE arithmetic in the order that is written.

    The code is cached beside the module, or in the user's cache folder where the package is read-only or a zip.
    """
    try:
        machine_code: Function = njit(function, nogil=True, cache=True)
    except RuntimeError:  # numba finds no folder it may write to, as in a container without a home: compile each time
        machine_code = njit(function, nogil=True)
    return machine_code
