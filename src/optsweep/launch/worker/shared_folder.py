"""The folder of `tracking.checkpoints`, which all machines of a sweep are to reach: whether it is that folder here.

It may have another path on each machine. So it holds a mark, which a planner makes and posts: whoever finds another
one, or none, is in another folder, however it is called.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from optsweep.errors import UserError
from optsweep.report.wording import plural
from optsweep.written import why_unwritable

KEY = "tracking.checkpoints"
CHECKPOINTS = "checkpoints"
"""The note of an arm's folder where its sweep is planned, and of its mark; null: each machine keeps its own."""

MARK = ".optsweep-checkpoints"
MOST_OF_A_MARK = 64


def check_folder(key: str, folder: Path, *, is_there: bool = False) -> None:
    """Raise UserError where it can't be written. Leaves nothing. `is_there`: it isn't to be made."""
    with suppress(OSError):  # of a name that can't be, which is said below
        if is_there and not folder.exists():
            raise UserError(f"{key}: there is no folder {folder} on this machine; mount it, or name where it is")
    if (why := why_unwritable(folder)) is not None:
        raise UserError(f"{key}: {folder} can't be written ({why})")


def make_mark(folder: Path) -> str:
    """The mark of a folder, which is made where it is missing, as the folder is. Raises UserError."""
    mark = folder / MARK
    beside = folder / f"{MARK}.{uuid.uuid4().hex}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (found := read_mark(folder)) is not None:
            return found
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(uuid.uuid4().hex)
            file.flush()
            os.fsync(file.fileno())
        try:
            with suppress(FileExistsError):  # of another sweep's planner, just now
                os.link(beside, mark)
        except OSError:  # a file system without hard links
            beside.replace(mark)
        made = read_mark(folder)
    except OSError as error:
        raise UserError(f"{KEY}: {folder} can't be written ({error.strerror})") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    if made is None:
        raise UserError(f"{KEY}: {mark} can't be read back; is the folder another machine's that is away?")
    return made


def read_mark(folder: Path) -> str | None:
    """The mark of a folder; None where it has none, or can't be read."""
    try:
        with (folder / MARK).open("rb") as file:
            return file.read(MOST_OF_A_MARK).decode("ascii", "replace").strip() or None
    except OSError:
        return None


def where_kept(noted: Sequence[str] | None, went_on: int, *, on_server: bool) -> str:
    """In words: where checkpoints lie, by that note and whether the storage is a server, and how many trials went on.

    Nothing where all of that is as it is on one machine.
    """
    if not (noted or went_on or on_server):
        return ""
    if noted:
        place = f"in {noted[0]}, for all machines that have this folder"
    elif on_server:
        place = f"in ./mlruns of each machine; a trial that changes over starts anew ({KEY}=FOLDER)"
    else:
        place = "beside the storage"
    gone_on = f"; {plural(went_on, 'trial')} went on from one" if went_on else ""
    return f"checkpoints: {place}{gone_on}"
