"""The finished run of the toy detector that the commands are tested on, for calls from Python."""

from tests.cli.conftest import toy_run

__all__ = ["toy_run"]
