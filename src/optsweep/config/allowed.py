"""What `sweep.allow` may let differ between trials of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optsweep.checks import refuse
from optsweep.errors import UserError, nearest

DEVICE, VERSIONS = "device", "versions"
ALLOWED = (DEVICE, VERSIONS)

NOTHING: Any = None
"""As `sweep.allow`: the empty list, which the arm puts in its place."""

ELSEWHERE = {word: f"other {word}" for word in ALLOWED}
"""The notes of an arm some of whose trials were trained on another machine than the first: which."""


def allowed(key: str, value: object) -> tuple[str, ...]:
    """The check of `sweep.allow`; in one order, each once. Null is the empty list."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(word, str) for word in value):
        raise refuse(key, value, f"a list of {' and '.join(ALLOWED)}, such as [{DEVICE}]")
    for word in value:
        if word not in ALLOWED:
            raise UserError(
                f"{key}: {word!r} is not allowed{nearest(word, ALLOWED)}; give a list of {' and '.join(ALLOWED)}"
            )
    return tuple(word for word in ALLOWED if word in value)
