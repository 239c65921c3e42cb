"""How good is a ranker, or a whole ensemble? Labelled data in, figures with their confidence intervals out."""
