"""BibTeX of what ran: which choice, statistic and tool cites which entries of references.bib."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from optsweep.report.comparison import Group
from optsweep.tracking.reader import ArmRecord, SweepRecord
from optsweep.train.trial import Phase

NOTHING: tuple[str, ...] = ()
"""There is nothing to cite: the choice is no method of anybody's, or it is the user's own."""

_UCI = ("pedregosa2011",)  # scikit-learn ships the tables
_MNIST_5K = ("lecun1998", "raschka2018")
_TRANSFORMER = ("vaswani2017",)

CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "task": {
        "breast_cancer": ("wolberg1993", *_UCI),
        "breast_cancer_mlp": ("wolberg1993", *_UCI),
        "charlm": _TRANSFORMER,
        "charlm_10m": _TRANSFORMER,
        "charlm_124m": _TRANSFORMER,
        "charlm_1m": _TRANSFORMER,
        "charlm_50m": _TRANSFORMER,
        "charlm_tiny": _TRANSFORMER,
        "cifar10_resnet": ("krizhevsky2009", "he2016"),
        "cifar10_wrn": ("krizhevsky2009", "zagoruyko2016"),
        "digits_logistic": ("alpaydin1998", *_UCI),
        "digits_mlp": ("alpaydin1998", *_UCI),
        "iris": ("fisher1936", *_UCI),
        "iris_mlp": ("fisher1936", *_UCI),
        "landscape": NOTHING,
        "mnist5k_cnn": _MNIST_5K,
        "mnist5k_resnet": (*_MNIST_5K, "he2016"),
        "own": NOTHING,
        "text": _TRANSFORMER,
        "wine": ("aeberhard1992", *_UCI),
        "wine_mlp": ("aeberhard1992", *_UCI),
    },
    "optimizer": {
        "adadelta": ("zeiler2012",),
        "adagrad": ("duchi2011",),
        "adam": ("kingma2015",),
        "adamw": ("kingma2015", "loshchilov2019"),
        "external": NOTHING,
        "lamb": ("you2020",),
        "lion": ("chen2023",),
        "momentum": ("polyak1964",),
        "muon": ("jordan2024", "liu2025"),
        "nesterov": ("nesterov1983", "sutskever2013"),
        "rmsprop": ("tieleman2012",),
        "sgd": ("robbins1951",),
        "soap": ("vyas2024", "gupta2018"),
    },
    "schedule": {
        "constant": NOTHING,
        "cosine": ("loshchilov2017",),
        "cosine_restarts": ("loshchilov2017",),
        "exponential": NOTHING,
        "inverse_sqrt": ("vaswani2017",),
        "linear": ("defazio2023", "bergsma2025"),
        "multi_step": ("he2016",),
        "one_cycle": ("smith2019",),
        "plateau": NOTHING,
        "polynomial": NOTHING,
        "schedule_free": ("defazio2024",),
        "step": ("he2016",),
        "wsd": ("hu2024", "haegele2024"),
    },
    "warmup": {
        "cosine": ("goyal2017",),
        "exponential": ("goyal2017",),
        "linear": ("goyal2017",),
        "none": NOTHING,
        "suggested": ("goyal2017",),
    },
    "weight_decay": {
        "decoupled": ("loshchilov2019",),
        "independent": ("loshchilov2019",),
        "l2": NOTHING,
        "none": NOTHING,
        "suggested": ("loshchilov2019",),
    },
    "averaging": {
        "ema": ("polyak1992", "ruppert1988"),
        "lawa": ("kaddour2022",),
        "none": NOTHING,
    },
}

SAMPLERS: Mapping[str, tuple[str, ...]] = {"gp": ("snoek2012",), "tpe": ("bergstra2011",), "quasi-random": NOTHING}
"""What proposes the trials whose origin is `model`."""

TOOLS = ("yadan2019", "akiba2019", "zaharia2018", "ansel2024")

_ENTRY = re.compile(r"^@\w+\{([^,\s]+),\n.*?^\}$", re.MULTILINE | re.DOTALL)


@cache
def entries() -> Mapping[str, str]:
    """All of references.bib: the text of each entry by its key."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    return {found.group(1): found.group(0) for found in _ENTRY.finditer(text)}


def bibliography(sweeps: Sequence[SweepRecord], groups: Sequence[Group], figures: Iterable[str]) -> str:
    """BibTeX of the choices, the search, the statistics and the tools of these sweeps, in the order of the file."""
    found = {
        *(key for sweep in sweeps for arm in sweep.arms for key in _of_arm(arm, sweep)),
        *_statistics(groups, figures),
        *TOOLS,
    }
    return "\n\n".join(text for key, text in entries().items() if key in found) + "\n"


def _of_arm(arm: ArmRecord, sweep: SweepRecord) -> Iterator[str]:
    for group, choice in arm.choices.items():
        yield from CHOICES.get(group, {}).get(choice, NOTHING)
    for suggested in arm.space.values():
        yield from (key for key, number in _arxiv().items() if number in suggested.source)
        yield from (key for word, key in _RANGES.items() if word in suggested.source)
    origins = {trial.origin for trial in arm.of(Phase.SEARCH)}
    if "quasi-random" in origins:
        yield "sobol1967"
    if "model" in origins:
        yield from SAMPLERS.get(sweep.plan.search.sampler, NOTHING)


_RANGES = {"AlgoPerf": "dahl2023", "EPFL": "semenov2025", "Fantastic": "wen2025", "Schedule-Free": "defazio2024"}
"""Sources by the word that a suggested range names them with."""


@cache
def _arxiv() -> Mapping[str, str]:
    """arXiv numbers by key, of the entries that have one."""
    numbers = {key: re.search(r"eprint = \{([^}]+)\}", text) for key, text in entries().items()}
    return {key: number.group(1) for key, number in numbers.items() if number}


_BY_FIGURE = {
    "tuning": ("lourie2023",),
    "importance": ("hutter2014",),
    "fit": ("wen2025", "tukey1958"),  # the loss curve and the speed-up read off it
    "speedup": ("wen2025", "tukey1958"),
}


def _statistics(groups: Sequence[Group], figures: Iterable[str]) -> Iterator[str]:
    """What the numbers of the report are made with."""
    if any(arm.test is not None and arm.test.low is not None for group in groups for arm in group.arms):
        yield "student1908"
    if any(group.tested > 1 for group in groups):
        yield "holm1979"
    if any(group.level.looks for group in groups):
        yield "pocock1977"
    for comparison in (comparison for group in groups for comparison in group.comparisons):
        if comparison.equal_p is not None:
            yield "schuirmann1987"
        if comparison.bca is not None:
            yield "efron1987"
        if comparison.probability is not None:
            yield from ("mann1947", "newcombe2006")
        if comparison.steps_ratios:
            yield "dahl2023"  # steps to a target set by the baseline
    drawn = list(figures)
    for figure, keys in _BY_FIGURE.items():
        if any(name.endswith(figure) for name in drawn):
            yield from keys
    if any("profile" in name or "across" in name for name in drawn):
        yield from ("agarwal2021", "dahl2023")
