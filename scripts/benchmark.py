"""The same as `detzoo benchmark`."""

import sys

from detzoo.cli.main import console

console(["benchmark", *sys.argv[1:]])
