"""Units: which ones carry nothing, and where the heads of an attention look."""
