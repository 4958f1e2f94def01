"""A refused command leaves no trace: what was written of a file, and the folders made for it, can be taken back."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


class Written:
    """A file as it is now, before somebody writes it."""

    def __init__(self, file: Path) -> None:
        self.file = file.absolute()
        self._before = self.file.read_bytes() if self.file.is_file() else None
        self._made = [folder for folder in self.file.parents if not folder.exists()]  # innermost first

    def undo(self) -> None:
        """Put it back; folders that weren't there go, unless something else lies in them."""
        if self._before is not None:
            self.file.write_bytes(self._before)
            return
        self.file.unlink(missing_ok=True)
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()
