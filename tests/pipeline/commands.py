"""Run as a program: the command line with several lists of arguments in one process, so that one JVM serves them all.

Takes a JSON list of argument lists and prints a JSON list of [exit code, start, end]: the part of standard error,
which must be a file, that belongs to each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys


def _call(arguments: list[str]) -> tuple[int, int, int]:
    from recbatch.cli import main

    start = os.fstat(2).st_size
    code: object = 0
    try:
        # The answer alone goes to standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            main(arguments)
    except SystemExit as stop:
        code = stop.code
    sys.stderr.flush()
    return int(str(code)), start, os.fstat(2).st_size


if __name__ == "__main__":
    print(json.dumps([_call(arguments) for arguments in json.loads(sys.argv[1])]))
