"""The same as `detzoo evaluate`."""

import sys

from detzoo.cli.main import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
