"""Figures, tables, the self-contained HTML page, terminal output."""
