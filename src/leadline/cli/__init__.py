"""One file per verb: train, check, diagnose, predict, report, import, bench, list, env."""
