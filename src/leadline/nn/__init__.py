"""The parts torch.nn lacks: initialisation, norms by name, residual paths, stochastic depth."""
