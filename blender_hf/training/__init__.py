"""Training of the two models."""
