"""Rerankers of sentence-transformers that are more than a sequence classification model, such as Qwen3-Reranker.

Their `modules.json` lists several modules, mostly a causal language model and `LogitScore`, the log-odds of "yes" after
the pair; the library runs them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils.hub import cached_file

from blender_hf.engine.concurrency import lock_to_run
from blender_hf.engine.results import Truncation
from blender_hf.errors import CheckpointError, require
from blender_hf.inputs import Item
from blender_hf.modeling.tokenizer_files import file_options, settings_of

from .checkpoints import HubOptions, explained, hub_settings, locate, pick_attention, pick_device, pick_dtype

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
CROSS_ENCODER = "CrossEncoder"
BATCH_SIZE = 16


class CrossEncoderScorer:
    """A pointwise ranker that runs a `CrossEncoder`; a score is the model's own, before any sigmoid.

    Args:
        model: A `sentence_transformers.CrossEncoder` that gives one score a pair.

    Raises:
        CheckpointError: If it gives several.
    """

    def __init__(self, model: Any) -> None:
        if model.num_labels != 1:
            raise CheckpointError(
                f"this cross-encoder gives {model.num_labels} scores a pair; a ranker needs one, which is that of a "
                "candidate"
            )
        self.model = model

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item; see `PointwiseRanker`."""
        return [scores for scores, _, _ in self.scores_and_readings(items)]

    def scores_and_readings(self, items: Sequence[Item]) -> list[tuple[tuple[float, ...], Truncation, None]]:
        """Score the candidates of each item, and report what was cut; equal pairs are scored once."""
        # In a fixed order, so that the same pairs make the same batches however they are given.
        pairs = sorted({(item.source, text) for item in items for text in item.texts})
        with lock_to_run(self.model):
            scores = self.model.predict(
                pairs, batch_size=BATCH_SIZE, activation_fn=torch.nn.Identity(), show_progress_bar=False
            )
            cut = self._cut(pairs)
        found = dict(zip(pairs, zip(map(float, scores), cut, strict=True), strict=True))
        return [self._of(item, found) for item in items]

    def _of(
        self, item: Item, found: Mapping[tuple[str, str], tuple[float, int]]
    ) -> tuple[tuple[float, ...], Truncation, None]:
        own = [found[item.source, text] for text in item.texts]
        # The library cuts the longer of the two texts first.
        of_prompt = [len(item.source) > len(text) for text in item.texts]
        prompt = max(n if longer else 0 for (_, n), longer in zip(own, of_prompt, strict=True))
        candidates = tuple(0 if longer else n for (_, n), longer in zip(own, of_prompt, strict=True))
        return tuple(score for score, _ in own), Truncation(prompt, candidates), None

    def _cut(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        """Return how many tokens of each pair are beyond what the model reads."""
        longest = self.model.max_seq_length
        if longest is None:
            return [0] * len(pairs)
        whole = {"text": {"truncation": False}, "chat_template": {"truncation": False}}
        prompt = (self.model.prompts or {}).get(self.model.default_prompt_name)
        lengths: list[int] = []
        for start in range(0, len(pairs), BATCH_SIZE):
            batch = list(pairs[start : start + BATCH_SIZE])
            read = self.model.preprocess(batch, prompt=prompt, processing_kwargs=whole)
            lengths += read["attention_mask"].sum(1).tolist()
        return [max(0, length - longest) for length in lengths]


def is_cross_encoder(where: str, options: HubOptions) -> bool:
    """Return whether a checkpoint is a cross-encoder of several modules.

    One of a single module is a sequence classification model, which is loaded as a reward model.
    """
    hub = hub_settings(options)
    path = cached_file(where, MODULES, _raise_exceptions_for_missing_entries=False, **file_options(hub))
    if path is None or settings_of(where, SETTINGS, **hub).get("model_type") != CROSS_ENCODER:
        return False
    modules = json.loads(Path(path).read_bytes())
    return isinstance(modules, list) and len(modules) > 1


def load_cross_encoder(
    name: str | Path,
    options: HubOptions,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    placing: Mapping[str, Any] | None = None,
) -> CrossEncoderScorer:
    """Load a reranker; the arguments are as in `load_ranker`, and `placing` goes to `from_pretrained`.

    Raises:
        BlenderError: If sentence-transformers is not installed.
        CheckpointError: If it can't be loaded.
    """
    library = require("sentence_transformers", "reranker", f"the reranker {name}")
    chosen_device = pick_device(device)
    hub = hub_settings(options)
    if "subfolder" in hub:
        raise CheckpointError(f"sentence-transformers reads no subfolders: download {name}, and give the folder itself")
    running = {"dtype": pick_dtype(dtype, chosen_device), **pick_attention(attn_implementation), **(placing or {})}
    given: dict[str, Any] = {
        "device": None if placing else str(chosen_device),
        "cache_folder": hub.pop("cache_dir", None),
    }

    def load() -> CrossEncoderScorer:
        return CrossEncoderScorer(library.CrossEncoder(locate(name), model_kwargs=running, **given, **hub))

    return explained(load, name, "ranker", options)
