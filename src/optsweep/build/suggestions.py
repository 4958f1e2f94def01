"""Suggested values and ranges: published tables as data, their adjustments, and where each number comes from.

Pure arithmetic over tables. "Deck" is the lecture that optsweep implements; the other sources are named in `SOURCES`.
A value is the source's own default where it states one, else the geometric middle of the range; its arithmetic says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from optsweep.build.arithmetic import Published, Spread, Suggestion, percent, product, rounded, scaled, short
from optsweep.build.measured import ARCHITECTURES, MEASURED_LR, MOST_STEPS, MOST_WIDTH, SOURCE

SOURCES: Mapping[str, str] = {
    "Deck": "Optimizer and LR Schedule (lecture deck)",
    "AlgoPerf": "MLCommons algorithmic-efficiency benchmark, tuning search spaces of the baselines",
    "EPFL": "Benchmarking Optimizers for LLM Pretraining, arXiv 2509.01440, and its scripts",
    "Fantastic": "Fantastic Pretraining Optimizers and Where to Find Them, arXiv 2509.02046",
    "Schedule-Free": "The Road Less Scheduled, arXiv 2405.15682, and its code",
    "SOAP": "SOAP, arXiv 2409.11321, and its authors' code",
    "Muon": "Muon (Jordan 2024) and its author's code",
    "Lion": "Symbolic Discovery of Optimization Algorithms, arXiv 2302.06675",
    "PyTorch": "torch.optim's default",
}
"""Sources by the name that suggestions cite them by."""

ADAPTIVE = frozenset({"adagrad", "rmsprop", "adadelta", "adam", "adamw", "lion", "lamb", "soap", "muon"})
"""Rules that normalise the gradient: decoupled decay of a given λ is far weaker in them than `l2` is."""


@dataclass(frozen=True)
class TaskFacts:
    """What the tables ask about a task and a run."""

    num_samples: int
    batch_size: int
    num_steps: int
    architecture: str  # "mlp", "cnn", "resnet", "transformer", "linear"
    data_type: str = ""  # "simple" (linear), "complex" (nonlinear), "" for neither
    reference_batch_size: int | None = None  # the batch size that ranges are taken to be for; None: the batch size
    fine_tuning: bool = False
    transfer_learning: bool = False
    deep: bool = False
    unstable: bool = False
    fan_in: int | None = None  # columns of a typical hidden matrix, for Muon's LR

    @property
    def epochs(self) -> float:
        """Passes over the training samples in the whole run."""
        return self.num_steps * self.batch_size / self.num_samples


DECK = "Deck, learning-rate ranges"
LR_RANGES: Mapping[str, Published] = {
    "sgd": Published(0.1, 1.0, f"{DECK}: SGD, no momentum"),
    "momentum": Published(0.01, 0.1, f"{DECK}: SGD with momentum"),
    "nesterov": Published(0.01, 0.1, f"{DECK}: SGD with momentum"),
    "adagrad": Published(0.01, 0.1, f"{DECK}: AdaGrad"),
    "rmsprop": Published(1e-4, 1e-3, f"{DECK}: RMSprop"),
    "adadelta": Published(0.1, 10.0, "no published range: a decade around PyTorch's default", 1.0, "PyTorch's default"),
    "adam": Published(1e-4, 1e-3, f"{DECK}: Adam, AdamW"),
    "adamw": Published(1e-4, 1e-3, f"{DECK}: Adam, AdamW"),
    "lion": Published(1e-4, 3e-4, f"{DECK}: Lion"),
    "lamb": Published(1e-4, 1e-2, "AlgoPerf: LAMB"),
    "soap": Published(2e-3, 1.6e-2, "EPFL's highest to Fantastic's highest: SOAP", 3e-3, "its authors' default"),
    "muon": Published(8e-3, 0.128, "Fantastic: Muon", 0.02, "its author's default"),
}
"""Learning rates to search, by optimizer."""

SCHEDULE_FREE_LR: Mapping[str, Published] = {
    **dict.fromkeys(
        ("sgd", "momentum", "nesterov"), Published(1.0, 10.0, "Schedule-Free: SGD", 1.0, "its code's default")
    ),
    **dict.fromkeys(("adam", "adamw"), Published(5e-4, 2e-2, "Schedule-Free: AdamW", 2.5e-3, "its code's default")),
}
"""Learning rates of schedule-free forms that were published; momentum is off there, so its rows are SGD's."""

LR_UNDER: Mapping[str, Mapping[str, Published]] = {"schedule_free": SCHEDULE_FREE_LR}
"""Learning rates published for a schedule, by schedule and optimizer; momentum is off in them."""

LR_SPREADS: Mapping[str, tuple[float, float]] = {"schedule_free": (1.0, 10.0)}
"""What widens the ends of an optimizer's own range where a schedule has no published one."""

LR_FACTORS: Mapping[str, tuple[float, str]] = {"wsd": (0.5, "WSD, EPFL")}
"""What a schedule multiplies the learning rate by, and who says so."""

FOR_ORIGINAL_SCALE = frozenset({"muon"})
"""Optimizers whose published learning rates are for `scale=original`."""

ADAMW_DECAY = Published(
    1e-3, 1.0, "AlgoPerf: LAMB 1e-3 – 1, AdamW 5e-3 – 1", 0.1, "middle of Fantastic's 0, 0.1, 0.2 for AdamW"
)
DECOUPLED_DECAY: Mapping[str, Published] = {
    **dict.fromkeys(("rmsprop", "adam", "adamw", "lamb"), ADAMW_DECAY),
    "soap": Published(1e-3, 1.0, "AlgoPerf's for adaptive rules", 0.01, "its authors' default"),
    "muon": Published(0.01, 0.1, "Muon: 0.01 – 0.1"),
    "lion": Published(3e-3, 10.0, "Lion: 3 – 10 × AdamW's"),
}
"""λ of decoupled decay, by optimizer."""

SCHEDULE_FREE_DECAY: Mapping[str, Published] = {
    **dict.fromkeys(("sgd", "momentum", "nesterov"), Published(5e-5, 2e-4, "Schedule-Free: SGD")),
    **dict.fromkeys(("adam", "adamw"), Published(8e-4, 0.08, "Schedule-Free: AdamW, 0 – 0.08, two decades of it")),
}
"""λ of decoupled decay under schedule-free."""

DECAY_UNDER: Mapping[str, Mapping[str, Published]] = {"schedule_free": SCHEDULE_FREE_DECAY}
"""λ of decoupled decay published for a schedule, by schedule and optimizer."""

WARMUP_UNDER: Mapping[str, tuple[float, str, str]] = {"schedule_free": (0.05, "schedule-free", "Schedule-Free: 5 %")}
"""Warm-up published for a schedule: fraction, case, source."""

STEP_OPTIONS: Mapping[str, tuple[str, ...]] = {"step": ("step_size", "gamma"), "multi_step": ("gamma",)}
"""Options of a schedule that have a suggested value beside `final`."""

DECAY_BY_ARCHITECTURE: Mapping[str, float] = {"cnn": 1.0, "transformer": 0.1, "resnet": 0.5}
DECAY_BY_DATA: Mapping[str, float] = {"simple": 2.0, "complex": 0.5}
SMALL_DATA, LARGE_DATA = 10_000, 1_000_000  # samples
SHORT_RUN, LONG_RUN = 20, 100  # epochs
LARGE_BATCH = 1000  # samples
MUON_COLUMNS = 768
"""Columns of the matrices that Muon's published learning rates are for (its author's 124M-parameter record)."""

FINAL_FRACTIONS: Mapping[str, float] = {"cosine": 0.01, "cosine_restarts": 0.01, "wsd": 0.01, "linear": 0.001}
"""Last LR as a fraction of the highest (EPFL)."""


def lr_range(
    optimizer: str, schedule: str, facts: TaskFacts, *, dampening: float = 0.0, muon_scale: str = "match_adam"
) -> Suggestion | None:
    """Learning rates to search for an optimizer under a schedule; None for an optimizer that no table has.

    `dampening` is momentum's, `muon_scale` is the option `scale` of Muon: published LRs are for `original`.
    """
    published = LR_RANGES.get(optimizer)
    if published is None:
        return None
    columns = facts.fan_in or MUON_COLUMNS
    scale = 5 / math.sqrt(columns) if optimizer in FOR_ORIGINAL_SCALE else 1.0
    own = LR_UNDER.get(schedule, {}).get(optimizer)
    shift = _short_and_narrow(optimizer, published, scale, facts)
    factors: list[tuple[float, str]] = []
    spread = Spread()
    if shift is not None and own is None:
        factors.append(shift)
        spread = _measured_spread(optimizer, published, math.inf if _as_measured(facts) else shift[0])
        published = Published(published.low, published.high, f"{published.source}, shifted as {SOURCE}")
    if own is not None:
        published = own
    elif schedule in LR_SPREADS:
        spread = spread.times(*LR_SPREADS[schedule], "schedule-free")
        published = Published(published.low, published.high, f"{published.source}; Schedule-Free: × 1 – 10")
    if optimizer in FOR_ORIGINAL_SCALE and muon_scale == "match_adam":
        factors.append((scale, f"to a step of RMS 0.2: 5/√{columns} columns"))
    if schedule in LR_FACTORS:
        factors.append(LR_FACTORS[schedule])
    if dampening > 0 and own is None:
        factors.append((1 / (1 - dampening), f"dampening {short(dampening)}"))
    factors += _lr_adjustments(facts)
    return scaled("lr", published, factors, spread)


def _short_and_narrow(optimizer: str, published: Published, scale: float, facts: TaskFacts) -> tuple[float, str] | None:
    """What leads from the middle of the published range to the measured one; in runs larger than measured, up only."""
    measured = MEASURED_LR.get(optimizer)
    if measured is None or facts.architecture not in ARCHITECTURES or facts.fan_in is None:
        return None
    factor = measured.at(facts.num_steps, facts.fan_in) / (math.sqrt(published.low * published.high) * scale)
    if factor <= 1 and not _as_measured(facts):
        return None
    return factor, f"{SOURCE}: {facts.num_steps} steps at width {facts.fan_in}"


def _as_measured(facts: TaskFacts) -> bool:
    """Whether a run is no larger than those that were measured."""
    return facts.num_steps <= MOST_STEPS and facts.fan_in is not None and facts.fan_in <= MOST_WIDTH


def _measured_spread(optimizer: str, published: Published, most: float) -> Spread:
    """What widens a published range to the factor that the measured optima lie within, `most` at most, to either side.

    In larger runs that is what it is shifted by: near the scale of the published tables they hold as they are.
    """
    factor = min(MEASURED_LR[optimizer].spread / math.sqrt(published.high / published.low), most)
    return Spread().times(1 / factor, factor, "measured") if factor > 1 else Spread()


def _lr_adjustments(facts: TaskFacts) -> list[tuple[float, str]]:
    """The deck's scenarios that hold."""
    factors: list[tuple[float, str]] = []
    reference = facts.reference_batch_size or facts.batch_size
    if facts.batch_size != reference:
        ratio = facts.batch_size / reference
        factors.append((math.sqrt(ratio), f"batch {facts.batch_size} against {reference}: √{short(ratio)}"))
    if facts.deep:
        factors.append((0.5, "deep"))
    if facts.fine_tuning:
        factors.append((0.1, "fine-tuning"))
    if facts.unstable:
        factors.append((0.1, "unstable"))
    return factors


def weight_decay(optimizer: str, mode: str, facts: TaskFacts, schedule: str = "") -> Suggestion | None:
    """λ for a mode of decay; None where no table has one.

    The deck's λ is for `l2` and `independent`, and for `decoupled` where that is the same as `l2` (plain gradients).
    """
    if mode == "none" or (mode == "decoupled" and optimizer not in LR_RANGES):
        return None
    if mode in ("l2", "independent"):
        return _deck_decay(facts)
    if (published := DECAY_UNDER.get(schedule, {}).get(optimizer)) is not None:
        return scaled("weight_decay", published, [])
    if optimizer not in ADAPTIVE:
        return _deck_decay(facts)
    if optimizer in DECOUPLED_DECAY:
        return scaled("weight_decay", DECOUPLED_DECAY[optimizer], [])
    own, adamw = (math.sqrt(LR_RANGES[name].low * LR_RANGES[name].high) for name in (optimizer, "adamw"))
    published = Published(ADAMW_DECAY.low, ADAMW_DECAY.high, "no published range: AdamW's at the same LR × λ")
    factor = (adamw / own, f"AdamW's LR {short(adamw)} against {short(own)}")
    return scaled("weight_decay", published, [factor])


def _deck_decay(facts: TaskFacts) -> Suggestion:
    """λ by the deck's four tables, and a decade to each side to search."""
    size, base = ("medium", 1e-4)
    if facts.num_samples < SMALL_DATA:
        size, base = ("small", 1e-3)
    elif facts.num_samples > LARGE_DATA:
        size, base = ("large", 1e-5)
    factors: list[tuple[float, str]] = []
    if (factor := DECAY_BY_ARCHITECTURE.get(facts.architecture)) is not None:
        factors.append((factor, facts.architecture))
    if (factor := DECAY_BY_DATA.get(facts.data_type)) is not None:
        factors.append((factor, f"{facts.data_type} data"))
    if facts.epochs < SHORT_RUN:
        factors.append((0.5, "short"))
    elif facts.epochs > LONG_RUN:
        factors.append((2.0, "long"))
    value = rounded(base * math.prod(factor for factor, _ in factors))
    return Suggestion(
        "weight_decay",
        rounded(value / 10),
        rounded(value * 10),
        value,
        "Deck, weight-decay tables; a decade to each side is searched",
        product(f"{short(base)} ({size} data)", factors, short(value)),
    )


def warmup_fraction(facts: TaskFacts, schedule: str = "") -> Suggestion:
    """Warm-up as a fraction of the run. Of several cases that hold, the first in the code below decides."""
    source = "Deck, warm-up length"
    if schedule in WARMUP_UNDER:
        low, case, source = WARMUP_UNDER[schedule]
        high = low
    elif facts.fine_tuning:
        low, high, case = 0.06, 0.06, "fine-tuning"
    elif facts.transfer_learning:
        low, high, case = 0.03, 0.05, "transfer learning"
    elif facts.batch_size > LARGE_BATCH:
        low, high, case = 0.15, 0.20, f"batch over {LARGE_BATCH}"
    elif facts.architecture == "transformer":
        low, high, case = 0.10, 0.10, "transformer"
    elif facts.num_samples < SMALL_DATA:
        low, high, case = 0.03, 0.05, "small data set"
    elif facts.architecture in ("cnn", "resnet"):
        low, high, case = 0.05, 0.05, "CNN"
    else:
        low, high, case, source = 0.05, 0.05, "default", "AlgoPerf: 5 %"
    middle = rounded((low + high) / 2)
    terms = f"{percent(low)} ({case})" if low == high else f"middle of {percent(low)} – {percent(high)} ({case})"
    if facts.unstable:
        low, high, middle = rounded(low + 0.05), rounded(high + 0.05), rounded(middle + 0.05)
        terms += " + 5 points (unstable)"
    if low != high or facts.unstable:
        terms += f" = {percent(middle)}"
    steps = round(middle * facts.num_steps)
    return Suggestion("warmup", low, high, middle, source, f"{terms}: {steps} of {facts.num_steps} steps")


def step_size(facts: TaskFacts) -> Suggestion:
    """Steps between two reductions of step decay; a third of the run where the deck's numbers would never fire."""
    low, high = 2000, 4000
    if facts.num_steps > high:
        value = round(math.sqrt(low * high))
        arithmetic = f"middle of {low} – {high} steps: √({low} · {high}) = {value}"
        return Suggestion("step_size", low, high, value, "Deck, step decay", arithmetic)
    value = max(1, facts.num_steps // 3)
    return Suggestion(
        "step_size",
        max(1, facts.num_steps // 4),
        max(1, facts.num_steps // 2),
        value,
        "Deck, step decay's example: epochs 30 and 60 of 90",
        f"{facts.num_steps} steps / 3 = {value}",
        f"the deck's {low} – {high} steps may never fire in a run of {facts.num_steps} steps",
    )


def gamma() -> Suggestion:
    """Factor of step decay."""
    return Suggestion("gamma", 0.1, 0.5, 0.1, "Deck, step decay", "0.1 – 0.5; 0.1 in the deck's example")


def final_fraction(schedule: str) -> Suggestion | None:
    """Last LR as a fraction of the highest; None for a schedule that no table has."""
    if (value := FINAL_FRACTIONS.get(schedule)) is None:
        return None
    return Suggestion("final", value, value, value, "EPFL", f"{short(value)} ({schedule}); 0.1 is clearly worse")


def suggest_all(
    optimizer: str,
    schedule: str,
    decay_mode: str,
    facts: TaskFacts,
    *,
    dampening: float = 0.0,
    muon_scale: str = "match_adam",
) -> list[Suggestion]:
    """Everything that the tables suggest for a combination, LR first."""
    options = STEP_OPTIONS.get(schedule, ())
    suggestions = [
        lr_range(optimizer, schedule, facts, dampening=dampening, muon_scale=muon_scale),
        weight_decay(optimizer, decay_mode, facts, schedule),
        warmup_fraction(facts, schedule),
        step_size(facts) if "step_size" in options else None,
        gamma() if "gamma" in options else None,
        final_fraction(schedule),
    ]
    return [suggestion for suggestion in suggestions if suggestion is not None]
