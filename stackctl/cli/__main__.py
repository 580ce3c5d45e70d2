"""`python -m stackctl.cli`: the command line where its script is not installed."""

from stackctl.cli.main import main

main()
