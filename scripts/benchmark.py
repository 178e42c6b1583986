"""The same as `detzoo benchmark`."""

import sys

from detzoo.cli.main import main

sys.exit(main(["benchmark", *sys.argv[1:]]))
