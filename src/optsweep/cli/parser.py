"""Parses the arguments of a verb, and those of a sweep, which are Hydra's."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from optsweep.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing the usage."""
        raise UserError(f"{self.prog.rpartition(' ')[2]}: {message}")


def of_sweep(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags. Raises UserError with the last line of what its parser prints."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return get_args_parser().parse_args(arguments)
    except SystemExit:
        line = said.getvalue().strip().splitlines()[-1:]
        raise UserError(" ".join(line).partition("error: ")[2] or "the arguments can't be read") from None
