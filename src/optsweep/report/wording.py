"""How numbers and lists are written: only digits that the uncertainty leaves standing, units always, one minus sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who says how long something took has no use for half a second of scipy
    from optsweep.inference.looks import Level
    from optsweep.inference.statistics import Interval, PairedT

MINUS = "−"
MOST_DECIMALS = 9
_FROM, _TO = -4, 7  # powers of ten between which a number is written out
ROUNDING = 1e-7  # of a number: uncertainties below are those of float32, as of seeds that all hit the same samples
_COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 4) -> str:
    """`value` with `digits` significant digits; a power of ten where it is very large or small."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if _FROM <= exponent < _TO:
        text = f"{value:.{max(digits - 1 - exponent, 0)}f}"
        if "." in text and digits > 2:
            text = text.rstrip("0").rstrip(".")
        return text.replace("-", MINUS)
    mantissa, power = f"{value:.{max(digits - 2, 0)}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}×10{str(int(power)).translate(_SUPERSCRIPTS)}".replace("-", MINUS)


def setting(value: float | None) -> str:
    """A hyperparameter: three digits, in the notation that a config takes."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.3g}"
    if "e" in text:
        mantissa, power = text.split("e")
        return f"{mantissa}e{int(power)}"
    if value != 0 and abs(value) < 1e-2:
        mantissa, power = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    return text


def spread(values: Sequence[float]) -> str:
    """A hyperparameter in all searches: the value, or lowest and highest."""
    ends = list(dict.fromkeys(map(setting, (min(values), max(values))))) if values else []
    return " – ".join(ends) or "–"


def decimals(uncertainty: float | None, value: float) -> int:
    """Decimals that leave two digits of the uncertainty; four significant digits of the value without one.

    Below zero of numbers so large that `fixed` writes a power of ten.
    """
    known = uncertainty and ROUNDING * abs(value) < uncertainty < math.inf
    scale = uncertainty / 10 if uncertainty and known else (abs(value) or 1.0) / 1_000
    return -math.floor(math.log10(scale)) if 0 < scale < math.inf else 0


def fixed(value: float, places: int, *, sign: bool = False) -> str:
    """`value` with `places` decimals, a real minus sign, and a plus if asked.

    A power of ten where the decimals are many, or the digits before them.
    """
    plus = "+" if sign else ""
    if not math.isfinite(value):
        return number(value)
    if places < 0 and 0 < abs(value) < 1:
        return f"{plus if value > 0 else ''}{number(value, 2)}"  # beside an uncertainty of hundreds, but not 0
    if places <= MOST_DECIMALS and abs(value) < 10**_TO:
        return f"{value:{plus}.{max(places, 0)}f}".replace("-", MINUS)
    if places > MOST_DECIMALS and float(f"{value:.{places}f}") == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    mantissa, power = f"{value:{plus}.{max(places + exponent, 0)}e}".split("e")
    return f"{mantissa}×10{str(int(power)).translate(_SUPERSCRIPTS)}".replace("-", MINUS)


def difference(value: float, places: int, *, sign: bool = False) -> str:
    """As `fixed`, with one more decimal where "−0.00" would say neither that there is one nor that there is none."""
    for told in (places, places + 1):
        if float(f"{value:.{max(told, 0)}f}") != 0:
            return fixed(value, told, sign=sign)
    return fixed(0.0, places)


def plus_minus(interval: Interval | None) -> str:
    """ "2.0513 ± 0.0092"."""
    if interval is None:
        return "–"
    half = interval.half_width
    places = decimals(half, interval.estimate)
    text = fixed(interval.estimate, places)
    return text if half is None else f"{text} ± {fixed(half, places)}"


def plus_minus_difference(test: PairedT | None) -> str:
    """ "−0.116 ± 0.021", signed; the bare difference where there is no interval."""
    if test is None:
        return "–"
    half = None if test.low is None or test.high is None else (test.high - test.low) / 2
    places = decimals(half, test.mean)
    text = difference(test.mean, places, sign=True)
    return text if half is None else f"{text} ± {fixed(half, places)}"


def span(low: float, high: float, places: int, *, sign: bool = False) -> str:
    """ "−0.145 to −0.101"."""
    return f"{fixed(low, places, sign=sign)} to {fixed(high, places, sign=sign)}"


def p_value(p: float | None) -> str:
    """ "p = 0.012", never a false zero."""
    if p is None:
        return ""
    if p < 1e-4:
        return "p < 0.0001"
    return f"p = {p:.4f}" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def percent(confidence: float) -> str:
    """ "95 %", "97.9 %"."""
    return f"{number(100 * confidence, 3)} %"


def interval_name(level: Level, of: str = "") -> str:
    """ "95 % interval", "97.9 % interval (three looks planned, Pocock)"; `of` what, in between."""
    text = f"{percent(level.confidence)} interval {of}".rstrip()
    if not level.looks:
        return text
    how = "at searches" if level.over_searches else "Pocock"
    return f"{text} ({_COUNTS.get(len(level.looks), len(level.looks))} looks planned, {how})"


def times(ratio: float | None) -> str:
    """ "1.42×"."""
    return "–" if ratio is None else f"{number(ratio, 3)}×"


def size(value: float | None) -> str:
    """Bytes in binary units."""
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{number(value, 3)} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds as one would say them."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{number(seconds, 3)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def listed(items: Sequence[str], last: str = "and") -> str:
    """ "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}" if items else ""


def capital(text: str) -> str:
    """As the beginning of a sentence; the rest stays as it is, unlike by `str.capitalize`."""
    return text[:1].upper() + text[1:]


def plural(count: int, noun: str) -> str:
    """ "1 seed", "8 seeds"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
