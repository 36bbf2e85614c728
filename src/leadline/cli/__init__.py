"""One file per verb: train, predict, report, list, env."""
