"""Representations: how alike they are between layers and runs, and how many directions they use."""
