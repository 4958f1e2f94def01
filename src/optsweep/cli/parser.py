"""Parses the arguments of a verb."""

from __future__ import annotations

import argparse
from typing import NoReturn

from optsweep.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing the usage."""
        raise UserError(f"{self.prog.rpartition(' ')[2]}: {message}")
