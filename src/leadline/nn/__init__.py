"""The parts torch.nn lacks: initialisation, norms, residual paths, blocks, attention, patches."""
