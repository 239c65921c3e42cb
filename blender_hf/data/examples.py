"""The examples that come with the package."""

from importlib.resources import files
from pathlib import Path

FOLDER = Path(str(files("blender_hf") / "examples"))
# Answers to 36 prompts by six language models of 7 to 65 billion parameters and more.
MODEL_ANSWERS = FOLDER / "smoke.jsonl"
# Written for the page and the documents: one answer is clearly the best. `benchmarks/showcase.py` checks them.
SHOWCASE = FOLDER / "showcase.jsonl"
