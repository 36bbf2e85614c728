"""Jacobians: the singular values of what lies between two places of a network."""
