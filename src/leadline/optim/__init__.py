"""How weights move: parameter groups, optimizers, schedules, freezing, clipping, averages."""
