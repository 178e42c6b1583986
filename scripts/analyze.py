"""The same as `detzoo analyze`."""

import sys

from detzoo.cli.main import console

console(["analyze", *sys.argv[1:]])
