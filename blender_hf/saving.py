"""Writes a checkpoint in the form in which it is published, for transformers 4 and 5 alike."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

# transformers 5 writes these in a form that transformers 4 can't read. Both find the special tokens in tokenizer.json.
ONLY_5_READS = ("backend", "extra_special_tokens")


def save_portable(model: PreTrainedModel, processor: ProcessorMixin, output: str | Path) -> None:
    """Save a model as safetensors, and everything that is needed to load it on either transformers.

    Args:
        model: The model.
        processor: Its processor.
        output: The folder.
    """
    model.save_pretrained(output)
    processor.save_pretrained(output)
    path = Path(output) / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    portable = {name: value for name, value in settings.items() if name not in ONLY_5_READS}
    if portable["tokenizer_class"] == "TokenizersBackend":  # its name before transformers 5, which both know
        portable["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(portable, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
