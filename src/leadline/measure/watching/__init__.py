"""Watching: the numbers of a training step, gathered on the device while it runs."""
