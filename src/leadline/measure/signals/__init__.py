"""Signals: what a forward pass carries through depth, measured and by mean-field theory."""
