"""Setup, the loop as a generator of Steps, Execution and its tuning, checkpoints, journal, evaluate."""
