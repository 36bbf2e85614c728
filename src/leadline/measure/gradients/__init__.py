"""Gradients: how much comes back to each layer and parameter, how noisy, how shattered."""
