"""Worker for this package, a pointwise scorer of the same encoder, and bare matrix products; see protocol.py."""

from collections import Counter
from typing import Any

import torch
from torch import nn

from benchmarks.inputs import separate_of
from benchmarks.peer.products import measure_products
from benchmarks.peer.protocol import Json, Meter, serve
from blender_hf import Blender
from blender_hf.engine.scorer import pack_by_tokens
from blender_hf.engine.separate import CandidateEncoder
from blender_hf.modeling import fast_kernels
from blender_hf.modeling.fast_deberta import states_at, uses_states_at

# Groups of PyTorch's operations by the ending of a word of their name; the first match counts.
GROUPS = {
    "matrix products": ("mm", "linear", "matmul", "einsum", "attention"),
    "softmax": ("softmax",),
    "activation": ("gelu", "tanh"),
    "normalisation": ("norm",),
    "lookups": ("gather", "index", "embedding", "scatter"),
    "copies and conversions": ("copy", "clone", "contiguous", "cat", "pad", "flip"),
    "sums and scalings": ("add", "sub", "mul", "div", "fill", "where"),
}


class PointwiseScorer(nn.Module):
    """Scores a sequence from its first token, as a reward model does, with the same optimisations as the ranker."""

    def __init__(self, backbone: nn.Module, hidden_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        torch.manual_seed(0)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Map two (batch, length) tensors to (batch,) scores."""
        if uses_states_at(self.backbone):
            first = states_at(self.backbone, torch.zeros_like(input_ids[:, :1]), input_ids, attention_mask)[:, 0]
        else:
            first = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        return self.head(first).float().squeeze(-1)


class OurEngine:
    """This package in one setting."""

    def __init__(self, setting: Json) -> None:
        self.setting = setting
        if setting["extra"] != "flashdeberta":
            fast_kernels.FLASH_DEVICE = "none"  # else it would be used where it is installed
        self.blender = Blender.from_pretrained(
            setting["ranker"], None, device=setting["device"], dtype=setting["dtype"]
        )
        model = self.blender.scorer.model
        layers = next(module for module in model.backbone.modules() if isinstance(module, nn.ModuleList))
        if setting["method"] == "separate":
            self.blender = Blender(separate_of(model), self.blender.scorer.processor)
            model = self.blender.scorer.model
        self.pointwise = PointwiseScorer(model.backbone, model.config.backbone_config.hidden_size)
        self.pointwise.head.to(model.device, model.dtype)
        self.meter = Meter(self.pointwise if setting["method"] == "pointwise" else model, layers[0])

    def run(self, job: Json) -> Any:
        """Rank the candidates, choose the best, or score each candidate alone."""
        if self.setting["method"] == "pointwise":
            return self._pointwise(job)
        if isinstance(self.blender.scorer, CandidateEncoder):
            self.blender.scorer.forget()
        act = self.blender.best_of_n if self.setting["method"] == "best" else self.blender.rank
        return act(job["prompts"], job["candidates"], **self.setting.get("options", {}))

    def describe(self, job: Json, result: Any) -> Json:
        """Return the index of the best candidate of each prompt and, if all were compared, the mean logits."""
        method = self.setting["method"]
        if method in ("pointwise", "separate"):  # with another head, so with other results
            return {"top": None, "logits": None}
        if method == "best":
            found = zip(job["candidates"], result, strict=True)
            return {"top": [texts.index(best) for texts, best in found], "logits": None}
        logits = [ranking.comparisons for ranking in result] if method == "full" else None
        return {"top": [ranking.order[0] for ranking in result], "logits": logits}

    @torch.inference_mode()
    def _pointwise(self, job: Json) -> list[float]:
        """Score each candidate alone, as [CLS]prompt[SEP]candidate[SEP].

        Tokenised and packed like the pairs, so that only the model's inputs differ.
        """
        scorer = self.blender.scorer
        encode = scorer.processor
        flat = [text for texts in job["candidates"] for text in texts]
        sources = [
            ids
            for ids, texts in zip(encode.encode_texts(job["prompts"]), job["candidates"], strict=True)
            for _ in texts
        ]
        start, end = encode.tokenizer.cls_token_id, encode.tokenizer.sep_token_id
        sequences = [
            [start, *source, end, *candidate, end]
            for source, candidate in zip(sources, encode.encode_texts(flat), strict=True)
        ]
        scores = [0.0] * len(sequences)
        for batch in pack_by_tokens([len(ids) for ids in sequences], scorer.max_batch_tokens, scorer.max_padding):
            inputs = encode.pad([sequences[i] for i in batch]).to(scorer.model.device)
            for index, score in zip(batch, self.pointwise(**inputs).tolist(), strict=True):
                scores[index] = score
        return scores


def products(engine: OurEngine, job: Json) -> Json:
    """Measure the matrix products of the model at the given shapes, without the model."""
    model = engine.blender.scorer.model
    return measure_products(model.config.backbone_config, job["shapes"], model.dtype, model.device)


def profile(engine: OurEngine, job: Json) -> Json:
    """Return the shares of the time of one run by operation."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    on_gpu = engine.setting["device"] == "cuda"
    if on_gpu:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiler, torch.profiler.record_function("the whole"):
        engine.run(job)
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        times[_group(event.key)] += spent
    total = sum(times.values())
    return {"profile": {name: spent / total for name, spent in times.most_common() if spent}}


def _group(operation: str) -> str:
    if operation == "the whole":
        return "Python: tokens, batches, results"
    words = operation.split("::")[-1].split("_")
    found = (name for name, ends in GROUPS.items() if any(word.endswith(end) for word in words for end in ends))
    return next(found, "other")


if __name__ == "__main__":
    serve(OurEngine, {"products": products, "profile": profile})
