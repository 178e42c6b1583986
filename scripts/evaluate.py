"""The same as `detzoo evaluate`."""

import sys

from detzoo.cli.main import console

console(["evaluate", *sys.argv[1:]])
