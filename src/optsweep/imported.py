"""Dotted paths of the config become objects here, and only those of code that the user has put in reach on purpose.

A config is data: it may come from somebody else, as a sweep file or as the results.json that `verify` runs again. What
it may name is code of torch.optim, of this product, of the user's own (the working folder, and folders that they put on
Python's path), and of installed packages that they list in an environment variable; by default there are none.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from optsweep.errors import UserError, is_own, located

TRUSTED_VARIABLE = "OPTSWEEP_TRUSTED_PACKAGES"
"""Names of packages that a config may name code of, with commas between."""

_OURS = ("torch.optim", "optsweep")


def imported(target: str, key: str) -> Any:
    """The object that a dotted path names. Raises UserError, in one line, for whatever is wrong with it."""
    module_name, _, attribute = target.rpartition(".")
    if not all(part.isidentifier() for part in target.split(".")) or not module_name:
        raise UserError(f"{key}: {target!r} can't be imported (give MODULE.NAME)")
    check_trusted(target, key)
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}: {target!r} can't be imported ({error})") from None
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is run
        raise UserError(f"{key}: {target!r} can't be imported ({located(error)})") from error
    for ours in _OURS:  # not what a module of it has imported for itself
        if _within(target, ours) and not (
            (inspect.isclass(found) or inspect.isfunction(found)) and _within(found.__module__, ours)
        ):
            raise UserError(f"{key}: {target!r} is no class or function of {ours}")
    return found


def check_trusted(target: str, key: str) -> None:
    """Raise UserError for code of a package that a config may not name. Imports nothing."""
    package = target.partition(".")[0]
    if any(_within(target, ours) for ours in _OURS) or package in trusted_packages():
        return
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # made by the program that runs, as its __main__ is
        if package in sys.modules:
            return
        spec = None
    if spec is None:
        raise UserError(f"{key}: {target!r} can't be imported (No module named {package!r})")
    files = [spec.origin] if spec.origin and spec.has_location else []
    places = [*files, *(spec.submodule_search_locations or [])]
    if not places or not all(is_own(Path(place).resolve()) for place in places):
        raise UserError(
            f"{key}: {target} is code of the package {package}, which a config may not name; may be: torch.optim, "
            f"optsweep, modules of the working folder, packages listed by {TRUSTED_VARIABLE}={package}"
        )


def trusted_packages() -> frozenset[str]:
    """What the user lists."""
    return frozenset(name.strip() for name in os.environ.get(TRUSTED_VARIABLE, "").split(",") if name.strip())


def _within(path: str, package: str) -> bool:
    return path == package or path.startswith(f"{package}.")
