"""The door for callers from Python: builders check the message that they are given with the rules of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detzoo.config.check.effects import check_effects
from detzoo.config.check.limits import check_limits
from detzoo.config.problems import Findings, Severity
from detzoo.errors import ConfigError


def require(message: Any, path: str, *rules: Callable[[Any, Findings], None]) -> None:
    """Checks one block, without the files that it names.

    Args:
        message: The block.
        path: Its path in a config, for the error.
        *rules: Checks of the block beyond ranges, effects and what is supported.

    Raises:
        ConfigError: The block has errors; all of them are listed, one per line with the path of their field.
    """
    findings = Findings().at(path)
    message = check_limits(message, findings)
    findings.drop_consequences()
    for rule in rules:
        rule(message, findings)
    check_effects(message, findings)
    errors = [problem for problem in findings.problems if problem.severity is Severity.ERROR]
    if errors:
        raise ConfigError("\n".join(f"{problem.path}: {problem.message}" for problem in errors))
