"""Setup, the loop as a generator of Steps, Execution and tuning, checkpoints, journal, evaluate."""
