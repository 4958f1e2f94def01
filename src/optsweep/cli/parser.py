"""Arguments of a verb, with its mistakes in one line, as everything else says them."""

from __future__ import annotations

import argparse
from typing import NoReturn

from optsweep.errors import UserError


class Parser(argparse.ArgumentParser):
    """Raises UserError where argparse prints the usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and of which verb."""
        raise UserError(f"{self.prog.rpartition(' ')[2]}: {message}")
