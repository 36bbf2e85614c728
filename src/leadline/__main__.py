"""Runs the command line as `python -m leadline`."""

from leadline.cli.main import main

main()
