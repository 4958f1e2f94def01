"""What docs/deploy ships is of the kind that it says, and its commands are this version's."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from optsweep.cli.parser import Parser
from optsweep.cli.table import VERBS

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"


def _read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def test_the_job_is_one_by_its_schema() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install 'optsweep[integration]'")
    job = _read("worker-job.yaml")
    validate.validate(job, "1.31", strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["arguments"] = []
    with pytest.raises(validate.ValidationError):
        validate.validate(job, "1.31", strict=True)


def _commands() -> list[list[str]]:
    (container,) = _read("worker-job.yaml")["spec"]["template"]["spec"]["containers"]
    services = _read("docker-compose.yaml")["services"]
    return [container["args"], *(shlex.split(services[name]["command"]) for name in ("planner", "worker"))]


def test_their_commands_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    class UnderstoodError(Exception):
        """The arguments could be parsed."""

    parse = Parser.parse_args

    def parsed(parser: Parser, arguments: Any) -> Any:
        parse(parser, arguments)
        raise UnderstoodError

    monkeypatch.setattr(Parser, "parse_args", parsed)
    for program, verb, *arguments in _commands():
        assert program == "optsweep"
        if verb in VERBS:
            with pytest.raises(UnderstoodError):
                VERBS[verb](arguments)
        else:
            assert verb == "-cn"
            assert (Path(__file__).parents[2] / "sweeps" / f"{arguments[0]}.yaml").is_file()
