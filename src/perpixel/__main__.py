"""`python -m perpixel`: the command line, where the `perpixel` script is not on the path."""

import sys

from perpixel.cli.main import main

sys.exit(main())
