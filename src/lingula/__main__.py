"""``python -m lingula`` is ``lingula``."""

from lingula.cli import main

main()
