"""Curvature: products, eigenvalues, density and trace of the Hessian, and what they say."""
