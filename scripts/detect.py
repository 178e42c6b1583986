"""The same as `detzoo detect`."""

import sys

from detzoo.cli.main import console

console(["detect", *sys.argv[1:]])
