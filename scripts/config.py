"""The same as `detzoo config`."""

import sys

from detzoo.cli.main import console

console(["config", *sys.argv[1:]])
