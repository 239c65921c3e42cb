"""Metrics of one candidate against a reference, with libraries and models of others; higher is better for all."""
