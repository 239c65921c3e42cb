"""Worker for the official llm-blender 0.0.2, in an environment of its own (`make bench-peer`); see protocol.py.

The package is unchanged. The logits of the pairs, which it does not return, are read by wrapping one method.
"""

from typing import Any

import torch
from llm_blender import Blender
from llm_blender.blender.config import BlenderConfig

from benchmarks.peer.protocol import Json, Meter, serve


class PeerEngine:
    """The official blender in one setting."""

    def __init__(self, setting: Json) -> None:
        self.setting = setting
        self.blender = Blender(blender_config=BlenderConfig(device=setting["device"], use_tqdm=False))
        # float16 is its default on a GPU, and never used on a CPU.
        self.blender.loadranker(setting["ranker"], device=setting["device"], fp16=setting["dtype"] == "float16")
        ranker = self.blender.ranker
        self.meter = Meter(ranker.pretrained_model, ranker.pretrained_model.encoder.layer[0])
        self.matrices: list[torch.Tensor] = []
        full_predict = ranker._full_predict

        def observed(**batch: Any) -> Any:
            outputs = full_predict(**batch)
            self.matrices.append(outputs["logits"])
            return outputs

        ranker._full_predict = observed

    def run(self, job: Json) -> Any:
        """Rank the candidates, or choose the best."""
        self.matrices.clear()
        options = {"batch_size": self.setting["batch_size"]}
        if self.setting["method"] == "full":
            return self.blender.rank(job["prompts"], job["candidates"], return_scores=True, **options)
        torch.manual_seed(0)  # it starts from a random order
        return self.blender.get_best_of_n(job["prompts"], job["candidates"], pairrm_cmp_type="bubble", **options)

    def describe(self, job: Json, result: Any) -> Json:
        """Return the index of the best candidate of each prompt and, if all were compared, the mean logits."""
        if self.setting["method"] != "full":
            found = zip(job["candidates"], result, strict=True)
            return {"top": [texts.index(str(best)) for texts, best in found], "logits": None}
        both = torch.cat(self.matrices).float().cpu()
        mean = (both - both.transpose(1, 2)) / 2  # the scale of blender_hf; the official one is twice this
        return {"top": result.argmax(axis=1).tolist(), "logits": mean.tolist()}


if __name__ == "__main__":
    serve(PeerEngine)
