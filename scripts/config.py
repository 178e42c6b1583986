"""The same as `detzoo config`."""

import sys

from detzoo.cli.main import main

sys.exit(main(["config", *sys.argv[1:]]))
