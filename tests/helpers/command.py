"""The command line in this process: what it prints, and how it ends."""

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest.mock import patch

from moalign.cli import main


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def moalign(*arguments: object, stdin: str = "") -> Ended:
    """Run `moalign arguments...`."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["moalign", *map(str, arguments)]
    with patch("sys.argv", argv), patch("sys.stdin", io.StringIO(stdin)), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Ended(code, out.getvalue(), err.getvalue())
