"""Reading one section of a composed config: typed, bounded, each key once, with errors that name the key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optsweep.errors import UserError, nearest


class Section:
    """A mapping of the config with its path. Keys are taken one by one; `close` refuses what is left over."""

    def __init__(self, data: object, path: str) -> None:
        if not isinstance(data, Mapping):
            raise UserError(f"{path}: a group of keys is wanted, got {data!r}")
        self.path = path
        self._data: dict[str, Any] = {str(key): value for key, value in data.items()}
        self._known = list(self._data)

    def name(self, key: str) -> str:
        """Full name of a key, as the user types it."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, value: object, allowed: str) -> UserError:
        """The error for a bad value."""
        return UserError(f"{self.name(key)}: {value!r} is not allowed; give {allowed}")

    def raw(self, key: str) -> Any:
        """A value as it is; a missing key or `???` is an error."""
        value = self._data.pop(key, "???")
        if value == "???":
            raise UserError(f"{self.name(key)}: a value is missing")
        return value

    def section(self, key: str) -> Section:
        """A section within this one."""
        return Section(self.raw(key), self.name(key))

    def integer(self, key: str, *, low: int) -> int:
        """A whole number of at least `low`."""
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.fail(key, value, f"a whole number ≥ {low}")
        return value

    def number(self, key: str, *, above: float = -math.inf, least: float = -math.inf, most: float = math.inf) -> float:
        """A finite number, > `above`, ≥ `least` and ≤ `most`."""
        value = self.raw(key)
        bounds = [f"> {above:g}"] * (above > -math.inf) + [f"≥ {least:g}"] * (least > -math.inf)
        bounds += [f"≤ {most:g}"] * (most < math.inf)
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not fits or not (above < value and least <= value <= most):
            raise self.fail(key, value, " ".join(["a number", " and ".join(bounds)]).strip())
        return float(value)

    def optional_number(self, key: str, **bounds: float) -> float | None:
        """As `number`, or null."""
        if self._data.get(key) is None:
            self._data.pop(key, None)
            return None
        return self.number(key, **bounds)

    def optional_integer(self, key: str, *, low: int) -> int | None:
        """As `integer`, or null."""
        if self._data.get(key) is None:
            self._data.pop(key, None)
            return None
        return self.integer(key, low=low)

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self.raw(key)
        if not isinstance(value, bool):
            raise self.fail(key, value, "true or false")
        return value

    def optional_boolean(self, key: str) -> bool | None:
        """As `boolean`, or null."""
        if self._data.get(key) is None:
            self._data.pop(key, None)
            return None
        return self.boolean(key)

    def text(self, key: str, choices: Sequence[str] = ()) -> str:
        """A string, one of `choices` if there are any."""
        value = self.raw(key)
        if value is None and "none" in choices:
            value = "none"
        if not isinstance(value, str) or (choices and value not in choices):
            allowed = "one of " + ", ".join(choices) if choices else "a string"
            hint = nearest(str(value), choices) if choices else ""
            raise self.fail(key, value, allowed + hint)
        return value

    def optional_text(self, key: str) -> str | None:
        """A string or null."""
        if self._data.get(key) is None:
            self._data.pop(key, None)
            return None
        return self.text(key)

    def rest(self) -> dict[str, Any]:
        """All keys not taken yet."""
        rest, self._data = self._data, {}
        return rest

    def close(self) -> None:
        """Refuse keys that nobody took."""
        if self._data:
            key = next(iter(self._data))
            known = [k for k in self._known if k not in self._data]
            raise UserError(f"{self.name(key)}: no such key{nearest(key, known)}; known: {', '.join(known)}")
