"""Where examples come from: one file per kind of source, and the loader that hands out batches."""
