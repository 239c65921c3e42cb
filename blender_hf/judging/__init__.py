"""Language models as rankers: they are asked which of two answers is better, and say how sure they are."""
