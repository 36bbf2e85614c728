"""Remedies: changes to a Setup, one file per part of it that they change."""
