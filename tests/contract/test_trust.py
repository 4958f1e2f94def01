"""A config names code of torch.optim, of optsweep, of the user's own modules and of listed packages, and no other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from optsweep.errors import UserError
from optsweep.imported import TRUSTED_VARIABLE, imported
from optsweep.optim.soap import SOAP
from optsweep.yaml_files import check_yaml

KEY = "task._target_"


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "torch.load",
        "torch.hub.load",
        "sklearn.datasets.load_iris",
        "sys.exit",
    ],
)
def test_other_code_is_refused_before_it_is_imported(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TRUSTED_VARIABLE, raising=False)
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"{name} was imported"))
    with pytest.raises(UserError, match=rf"^{KEY}: {target} is code of the package .*{TRUSTED_VARIABLE}="):
        imported(target, KEY)


@pytest.mark.parametrize(
    "target",
    ["optsweep.errors.Path", "optsweep.cli.main.sys", "torch.optim.optimizer.torch", "optsweep.api.contextlib"],
)
def test_what_a_trusted_module_has_imported_is_not_its_own(target: str) -> None:
    with pytest.raises(UserError, match="is no class or function of"):
        imported(target, KEY)


def test_what_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert imported("torch.optim.Adam", KEY) is torch.optim.Adam
    assert imported("optsweep.optim.soap.SOAP", KEY) is SOAP
    (tmp_path / "mine_alone.py").write_text("def task(): return 5\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "installed_once.py").write_text("def task(): return 6\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert imported("mine_alone.task", KEY)() == 5
    with pytest.raises(UserError, match="package installed_once"):
        imported("installed_once.task", KEY)
    monkeypatch.setenv(TRUSTED_VARIABLE, "another, installed_once")
    assert imported("installed_once.task", KEY)() == 6


def test_a_bomb_is_seen_before_it_unfolds() -> None:
    nested = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)]
    with pytest.raises(UserError, match=r"^x\.yaml: its aliases \(\*\) unfold to more than"):
        check_yaml("\n".join(["a0: &a0 [x]", *nested]).encode(), "x.yaml")
    check_yaml(b"a: &a {b: 1}\nc: *a\nd: [*a, *a]\n", "x.yaml")
    check_yaml(b"", "x.yaml")
    with pytest.raises(UserError, match=r"^x\.yaml: 2000008 bytes are too many"):
        check_yaml(b"a: [" + b"1," * 10**6 + b"1]\n\n", "x.yaml")
