"""Parses the arguments of a verb, and those of a sweep, which are Hydra's."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

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


def say_json(content: Any) -> None:
    """Print it, for machines: what is no number is null, since JSON has no others."""
    sys.stdout.write(json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")


def _finite(content: Any) -> Any:
    """The same with None for floats that aren't finite, strings for keys."""
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content
