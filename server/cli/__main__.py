"""Lets a process start the command line in a child without knowing where the ``homereel`` script is."""

import sys

from server.cli.main import main

sys.exit(main())
