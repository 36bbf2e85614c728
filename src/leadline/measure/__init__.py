"""What flows through depth: signals, gradients, Jacobians, units, curvature, similarity."""
