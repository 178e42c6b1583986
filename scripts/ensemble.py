"""The same as `detzoo ensemble`."""

import sys

from detzoo.cli.main import console

console(["ensemble", *sys.argv[1:]])
