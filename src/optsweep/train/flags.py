"""Switches of torch that hold for the whole process, and that a user's model may set: precision, kernels, checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import backends as b

Switch = tuple[Callable[[], Any], Callable[[Any], object]]
"""What reads it, and what sets it."""


def _of(owner: Any, name: str) -> Switch:
    return partial(attrgetter(name), owner), partial(setattr, owner, name)


_SWITCHES: Mapping[str, Switch] = {
    "backends.fp32_precision": _of(b, "fp32_precision"),
    "cuda.matmul.fp32_precision": _of(b.cuda.matmul, "fp32_precision"),
    "cudnn.conv.fp32_precision": _of(b.cudnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
    "cudnn.rnn.fp32_precision": _of(b.cudnn.rnn, "fp32_precision"),
    "mkldnn.matmul.fp32_precision": _of(b.mkldnn.matmul, "fp32_precision"),  # type: ignore[attr-defined]
    "mkldnn.conv.fp32_precision": _of(b.mkldnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
    "mkldnn.rnn.fp32_precision": _of(b.mkldnn.rnn, "fp32_precision"),  # type: ignore[attr-defined]
    "cudnn.allow_tf32": _of(b.cudnn, "allow_tf32"),
    "float32_matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "cuda.matmul.fp16_reduction": _of(b.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
    "cuda.matmul.bf16_reduction": _of(b.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    "cudnn.enabled": _of(b.cudnn, "enabled"),
    "cudnn.benchmark": _of(b.cudnn, "benchmark"),
    "cudnn.deterministic": _of(b.cudnn, "deterministic"),
    "flash_sdp": (b.cuda.flash_sdp_enabled, b.cuda.enable_flash_sdp),
    "mem_efficient_sdp": (b.cuda.mem_efficient_sdp_enabled, b.cuda.enable_mem_efficient_sdp),
    "math_sdp": (b.cuda.math_sdp_enabled, b.cuda.enable_math_sdp),
    "cudnn_sdp": (b.cuda.cudnn_sdp_enabled, b.cuda.enable_cudnn_sdp),
    "anomaly": (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.set_anomaly_enabled(*value),
    ),
    "deterministic": (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    "default_device": (
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
}
"""Those by which float32 may be computed come first: torch reads the older ones only where they agree with the newer.
"""

Flags = Mapping[str, Any]
"""Values by name; None: it can't be read, and isn't set."""


def flags() -> Flags:
    """All switches as they are."""
    return {name: _read(get) for name, (get, _) in _SWITCHES.items()}


def changed(before: Flags) -> Flags:
    """Those that are otherwise now, as they are now."""
    return {name: value for name, value in flags().items() if value != before[name]}


def put(values: Flags) -> None:
    """Set these switches, where they are otherwise; then once more, because setting one may set another."""
    for _ in range(2):
        setters = 0
        for name, value in values.items():
            get, set_ = _SWITCHES[name]
            if value is not None and _read(get) != value:
                set_(value)
                setters += 1
        if not setters:
            return


def _read(get: Callable[[], Any]) -> Any:
    try:
        return get()
    except RuntimeError:  # torch refuses to say in one way what was set in another
        return None
