"""From names of checkpoints, folders and Hub ids to loaded models."""
