"""A composed config as YAML text: what `OmegaConf.to_yaml` writes, by libyaml, which takes a tenth of its time."""

from __future__ import annotations

from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import OmegaConfDumper

try:
    from yaml import CDumper as _Emitter
except ImportError:  # PyYAML was built without it
    from yaml import Dumper as _Emitter  # type: ignore[assignment]


class _Dumper(_Emitter):
    """Quotes a text that would be read as a number or a truth value."""


def _text(dumper: Any, text: str) -> yaml.Node:
    return OmegaConfDumper.str_representer(dumper, text)


_Dumper.add_representer(str, _text)


def to_yaml(config: dict[Any, Any]) -> str:
    """The text of a config of plain containers."""
    text = yaml.dump(config, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
    assert isinstance(text, str)
    # libyaml escapes what lies beyond 16 bits, as emojis do
    return OmegaConf.to_yaml(OmegaConf.create(config)) if "\\U" in text else text
