"""How weights move: parameter groups, optimizers, schedules, clipping, averages."""
