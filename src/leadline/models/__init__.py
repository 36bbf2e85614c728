"""The model families, MLP to transformer, every choice a parameter; and weights from elsewhere."""
