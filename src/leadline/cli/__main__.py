"""Runs the command line as `python -m leadline.cli`."""

from leadline.cli.main import main

main()
