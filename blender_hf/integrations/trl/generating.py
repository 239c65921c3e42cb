"""Letting a model in training answer prompts, each process a share of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import distributed
from transformers import BatchEncoding, GenerationConfig

from blender_hf.errors import BlenderError

# What a configuration says of itself.
NOT_OPTIONS = ("transformers_version", "_from_model_config")


def generate(
    model: Any,
    accelerator: Any,
    processing_class: Any,
    prompts: Sequence[Any],
    generation_config: GenerationConfig | None,
    batch_size: int,
    seed: int,
) -> list[str]:
    """Return an answer to each prompt, the same list in every process.

    Args:
        model: The model, as it was wrapped for training.
        accelerator: The trainer's `Accelerator`.
        processing_class: The trainer's tokenizer, or a processor with one; left as it is.
        prompts: Texts, continued as they are, or lists of messages, for which the chat template is applied.
        generation_config: How answers are generated; None is the model's own.
        batch_size: How many prompts are answered together.
        seed: Of what is drawn; the training's own random numbers are left as they are.

    Raises:
        BlenderError: If TRL is not installed, or the model is sharded by FSDP, which can't generate.
    """
    try:
        from trl.models.utils import unwrap_model_for_generation
    except ImportError as error:
        raise BlenderError("the win rate needs TRL: pip install 'blender-hf[trl]'") from error
    if accelerator.distributed_type == "FSDP":
        raise BlenderError(
            "the win rate can't be measured under FSDP: a model that is sharded so does not generate here"
        )
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    options = _options(generation_config)
    # Every process takes part in each batch, if only with a prompt that another answers too: where weights are in
    # parts, a model generates in all processes or in none.
    rows = -(-len(prompts) // accelerator.num_processes)
    first = accelerator.process_index * rows
    share = [prompts[index % len(prompts)] for index in range(first, first + rows)]
    answers: list[str] = []
    with unwrap_model_for_generation(model, accelerator) as unwrapped, _aside(unwrapped, seed):
        for start in range(0, rows, batch_size):
            inputs = _left_padded(tokenizer, share[start : start + batch_size]).to(accelerator.device)
            written = unwrapped.generate(**inputs, **options)
            answers += tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return _from_all(answers)[: len(prompts)]


@contextmanager
def _aside(model: Any, seed: int) -> Iterator[None]:
    """Let a model generate in the middle of its training, and leave no trace of it."""
    training = model.training
    devices = [model.device.index] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield
    finally:
        model.train(training)


def _options(generation_config: GenerationConfig | None) -> dict[str, Any]:
    """Return a configuration as options of `generate`, which overrule the model's own.

    Given as a configuration, what it has in common with the defaults of transformers would be the model's, on 4.57
    (https://github.com/huggingface/transformers/issues/42762).
    """
    if generation_config is None:
        return {}
    settings = generation_config.to_dict()
    return {k: v for k, v in settings.items() if v is not None and k not in NOT_OPTIONS}


def _left_padded(tokenizer: Any, prompts: Sequence[Any]) -> BatchEncoding:
    """Tokenise prompts, so that all end at the same place."""
    texts = [
        prompt
        if isinstance(prompt, str)
        else tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    # A template writes the tokens at the start itself.
    special = all(isinstance(prompt, str) for prompt in prompts)
    inputs = tokenizer(
        texts, add_special_tokens=special, padding=True, padding_side="left", return_tensors="pt", verbose=False
    )
    return BatchEncoding({name: inputs[name] for name in ("input_ids", "attention_mask")})


def _from_all(answers: Sequence[str]) -> list[str]:
    """Return the answers of all processes, in the order of the processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(answers)
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, list(answers))
    return list(chain.from_iterable(shares))
