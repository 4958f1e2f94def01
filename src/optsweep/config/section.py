"""One section of a composed config, read key by key; errors name the key as the user types it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optsweep.config.fields import missing
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

    def get(self, key: str, default: Any) -> Any:
        """A value as it is, or the default of a key that isn't there; `???` counts as a missing value."""
        value = self._data.pop(key, default)
        if value == "???":
            raise missing(self.name(key))
        return value

    def raw(self, key: str) -> Any:
        """A value as it is; a missing key or `???` is an error."""
        return self.get(key, "???")

    def section(self, key: str) -> Section:
        """A section within this one."""
        return Section(self.raw(key), self.name(key))

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
