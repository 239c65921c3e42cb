"""Training of rankers, fusers and reward models."""
