"""Receptive fields: what each unit can see, and what it really uses."""
