"""What decides a trial's numbers beside its arm's settings: model, data, code, product and machine.

Exact parts are hashed into the fingerprint. Norms, the first loss and its gradient are compared with a tolerance, so
that last bits (another order of summation) don't matter. Both are kept in words, and a sweep that is not continued says
what differs.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optsweep.build.machine import THE_DEVICE, Machine, keys_of
from optsweep.build.sources import source_digests

if TYPE_CHECKING:  # a planner compares identities, and has no use for a second of torch
    from optsweep.train.probe import Probe
    from optsweep.train.workload import ArmProgram

NUMERICS_VERSION = 5
"""Bumped when a change of the product alters the numbers of trials.

2: every parameter and buffer, frozen ones included, comes from the trial's own seed; all randomness is a function of
seed and step; modules under several names and reassigned buffers are trained and scored as they are.
3: SOAP sorts its basis by octaves of the eigenvalues and refreshes it in float64, with damping 1e-2; LAMB under
schedule-free decays where `decay_at` says; divergence is judged from the loss's floor or by its spread.
4: rungs of all schedules lie on one grid.
5: rules for matrices take parameters `[1, T, d]` as T × d.
"""

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
"""Relative difference of two numbers that may still be the same, by precision.

Another order of summation moves a float32 loss or norm by 1e-7 to 1e-6, and bfloat16 has 8 bits.
"""

ACROSS_DEVICES = 5e-3
"""The same of the first loss and its gradient where the device may be another one, and is.

One may compute float32 in TF32 and the other not, which keeps 10 bits of a factor: 2⁻¹¹ = 5e-4 of a product, ten times
that here. Initial values come from the host's generator on any device.
"""

FLOOR = 1e-7
"""Numbers this close are the same, whatever their ratio: a loss that starts at zero is rounding."""

SHOWN = 3
"""Differences that a refusal names."""

FIRST_LOSS, FIRST_NORM, FIRST_BATCH = "the first loss", "the first gradient's norm", "the first batch"
NUMERICS, RULE = "optsweep's numerics version", "the rule"
_SOURCE, _NORM = "the source of ", "the initial norm of "


@dataclass(frozen=True)
class Identity:
    """What was trained, by its name in words."""

    exact: Mapping[str, str | int]
    approximate: Mapping[str, float]
    tolerance: float = TOLERANCE["fp32"]

    @property
    def has_own_code(self) -> bool:
        """Whether source files of the user's are a part of it."""
        return any(key.startswith(_SOURCE) for key in self.exact)

    def differences(self, before: Identity, allow: Collection[str] = ()) -> list[str]:
        """What is no longer as it was and may not differ, a few words each, what explains most first.

        Another version of the product's numerics explains all the rest.
        """
        if before.exact.get(NUMERICS) != self.exact[NUMERICS]:
            return [_in_words(NUMERICS, before.exact.get(NUMERICS), self.exact[NUMERICS])]
        changed = [key for key in {**before.exact, **self.exact} if before.exact.get(key) != self.exact.get(key)]
        free = keys_of(allow)
        elsewhere = THE_DEVICE in free and THE_DEVICE in changed
        changed = [key for key in changed if key not in free]
        resized = {key.partition(" ")[2] for key in changed if key.startswith(("parameter ", "buffer "))}
        moved = [
            key
            for key in self.approximate
            if key.removeprefix(_NORM) not in resized and not self._same(key, before, elsewhere)
        ]
        same_data = " (same data, same seed)" if FIRST_BATCH not in changed else ""
        words = {key: _in_words(key, before.exact.get(key), self.exact.get(key)) for key in changed}
        for key in moved:
            note = same_data if key == FIRST_LOSS else ""
            words[key] = _in_numbers(key, before.approximate.get(key), self.approximate[key]) + note
        ordered = sorted(words, key=_order)
        norms = [key for key in ordered if key.startswith(_NORM)]  # one speaks for all of them
        return [words[key] for key in (*(key for key in ordered if key not in norms[1:]), *norms[1:])]

    def _same(self, key: str, before: Identity, elsewhere: bool) -> bool:
        """Whether a number is, to the tolerance; `elsewhere`: on another device, which may be."""
        then, now = before.approximate.get(key), self.approximate[key]
        if then is None:
            return False
        computed = elsewhere and key in (FIRST_LOSS, FIRST_NORM)
        tolerance = max(self.tolerance, ACROSS_DEVICES) if computed else self.tolerance
        return math.isclose(then, now, rel_tol=tolerance, abs_tol=FLOOR) or (math.isnan(then) and math.isnan(now))


def identify(program: ArmProgram, rule: str, code: Sequence[Any]) -> Identity:
    """The identity of a program; `code` are the rule, schedule and average that came from a dotted path.

    Runs one forward and one backward pass.
    """
    from optsweep.train.workload import workload_of

    workload = workload_of(program)
    found = workload.digest()
    sources = source_digests([*workload.code(), *code])
    exact: dict[str, str | int] = {
        **_structure(found),
        FIRST_BATCH: found.first_batch,
        **{_SOURCE + file: digest for file, digest in sources.items()},
        RULE: rule,
        THE_DEVICE: Machine.of(program.device).device,
        NUMERICS: NUMERICS_VERSION,
    }
    approximate = {
        FIRST_LOSS: found.loss,
        FIRST_NORM: found.grad_norm,
        **{_NORM + name: norm for name, norm in found.norms.items()},
    }
    return Identity(exact, approximate, TOLERANCE[program.precision])


def fingerprint_of(content: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _structure(found: Probe) -> dict[str, str]:
    """Shape of every tensor, '32 × 16', and its dtype where it is another than float32."""
    structure = {}
    for tensor in found.tensors:
        words = [" × ".join(map(str, tensor.shape)) or "a number"]
        words += [tensor.dtype.removeprefix("torch.")] * (tensor.dtype != "torch.float32")
        words += ["(frozen)"] * (not tensor.trained and not tensor.buffer)
        structure[f"{'buffer' if tensor.buffer else 'parameter'} {tensor.name}"] = " ".join(words)
    return structure


def described(cls: Any, options: Mapping[str, Any]) -> str:
    """A class with its static options, defaults included, in words: 'optsweep.optim.soap.SOAP(refresh=10)'."""
    parameters = inspect.signature(cls).parameters
    values = {key: options.get(key, parameter.default) for key, parameter in parameters.items()}
    plain = {key: value for key, value in values.items() if value is None or isinstance(value, (bool, int, float, str))}
    return f"{cls.__module__}.{cls.__qualname__}({', '.join(f'{key}={value!r}' for key, value in plain.items())})"


# -- words ---------------------------------------------------------------------------------------------------------

_KINDS = (
    ("parameter ", "of another model"),
    ("buffer ", "of another model"),
    (FIRST_BATCH, "of other data"),
    (_NORM, "of another start"),
    (FIRST_LOSS, "of another model"),
    (_SOURCE, "of other code"),
    (RULE, "of another rule"),
    (THE_DEVICE, "of another device"),
    (FIRST_NORM, "of another model"),
    (NUMERICS, "of another version of optsweep"),
)
"""Beginnings of keys, and what a difference there means, most telling first."""


def _order(key: str) -> int:
    return next(place for place, (beginning, _) in enumerate(_KINDS) if key.startswith(beginning))


def heading(difference: str) -> str:
    """What kind of trials a difference speaks of."""
    return _KINDS[_order(difference)][1]


def _in_words(key: str, before: str | int | None, now: str | int | None) -> str:
    if now is None:
        return f"{key} is gone"
    if before is None:
        return f"{key} is new"
    if key.startswith((_SOURCE, FIRST_BATCH)):  # digests, which tell nobody anything
        return f"{key} changed"
    return f"{key} was {before}, is {now}"


def _in_numbers(key: str, before: float | None, now: float) -> str:
    if before is None:
        return f"{key} is new"
    texts = next(((f"{before:.{n}g}", f"{now:.{n}g}") for n in (3, 5) if f"{before:.{n}g}" != f"{now:.{n}g}"), None)
    old, new = texts or (f"{before:.9g}", f"{now:.9g}")
    return f"{key} was {old}, is {new}"
