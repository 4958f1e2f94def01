"""A refused command leaves no trace: what was written of a file, and the folders made for it, can be taken back.

Whether a folder can be written is found out by writing there, which leaves nothing either.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from optsweep.address import near
from optsweep.errors import UserError


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


def why_unwritable(folder: Path) -> str | None:
    """Why nothing can be written into a folder, which may be still to be made; None: it can be."""
    try:
        found = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
        if not found.is_dir():
            return f"{near(found)}: it is no folder"
        # by really doing so, since a server may forbid what permissions allow; in a folder that is nobody else's
        with TemporaryDirectory(prefix=".optsweep-", dir=found) as below, TemporaryFile(dir=below):
            return None
    except OSError as error:
        return str(error.strerror)


def check_report_folder(folder: Path) -> None:
    """Raise UserError where a sweep's report couldn't be written."""
    if (why := why_unwritable(folder)) is not None:
        raise UserError(
            f"{folder} can't be written ({why}), and the sweep's report is to lie there; "
            "make room for it, or start the sweep in another folder"
        )
