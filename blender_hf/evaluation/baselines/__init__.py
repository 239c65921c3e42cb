"""The rankers that the paper compares with; each is an object with `scores(items)`, and so a ranker for `Blender`."""
