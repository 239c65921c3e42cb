"""Small real language models with chat templates, made on the spot."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from blender_hf import CausalGenFuserProcessor, GenFuser, GenFuserProcessor, PairRanker, PairRankerProcessor
from blender_hf.modeling.configuration_pair_ranker import TRUNCATION
from tests.conftest import T5_SETTINGS, build_separate_ranker, example_texts, fuser_tokenizer
from tests.stacks.families import config_of

CONTEXT = 160
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As that of SmolLM2: a conversation without a system message gets one.
DEFAULT_SYSTEM = "Be good."
SYSTEM_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + DEFAULT_SYSTEM + "<|im_end|>\n{% endif %}"
) + TEMPLATE
# A template that refuses system messages, and two messages of the same role in a row, as Gemma's does.
STRICT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}" + TEMPLATE
)


def chat_tokenizer(template: str | None = TEMPLATE, *, start_is_special: bool = True) -> PreTrainedTokenizerFast:
    """Return a tokenizer like Qwen's: byte-level BPE with the marks of ChatML as special tokens.

    Some others have the mark of a turn's start as an added token that is not called special.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_end|>", *(["<|im_start|>"] if start_is_special else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(example_texts(), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"] if start_is_special else [],
        model_input_names=["input_ids", "attention_mask"],
    )
    if not start_is_special:
        made.add_tokens(["<|im_start|>"])
    made.chat_template = template
    return made


def save_chat_model(
    folder: Path,
    *,
    seed: int = 0,
    template: str | None = TEMPLATE,
    context: int = CONTEXT,
    kind: type[PretrainedConfig] = LlamaConfig,
    head_dim: int = 16,
) -> Path:
    """Save a small random model whose likeliest tokens stand out, so that padding and batches can't change them."""
    set_seed(seed)
    tokenizer = chat_tokenizer(template)
    model = AutoModelForCausalLM.from_config(
        kind(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=head_dim,
            max_position_embeddings=context,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "proj" in name or "embed" in name:
                weights.normal_(std=0.3)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_chat_ranker(template: str = SYSTEM_TEMPLATE, **config: Any) -> tuple[PairRanker, PairRankerProcessor]:
    """Return a small random Llama that ranks by its chat template, and its processor."""
    lengths = {name: config.pop(name) for name in TRUNCATION if name in config}
    lengths = {"max_pair_length": 160, "max_source_length": 80, "max_candidate_length": 64, **lengths}
    processor = PairRankerProcessor.for_training(chat_tokenizer(template), layout="chat", **lengths)
    return build_separate_ranker(config_of("llama", len(processor.tokenizer)), processor, **config)


def build_causal_fuser(
    kind: type[PretrainedConfig] = LlamaConfig, *, context: int = 640, **options: object
) -> tuple[PreTrainedModel, CausalGenFuserProcessor]:
    """Return a small causal fuser with random weights, as it is made of a plain language model, and its processor."""
    with TemporaryDirectory() as made:
        folder = save_chat_model(Path(made), kind=kind, context=context, **options)
        return GenFuser.from_pretrained(folder).eval(), GenFuserProcessor.from_pretrained(folder)


def save_encoder_decoder(folder: Path) -> Path:
    """Save a small random T5, which has no chat template."""
    set_seed(0)
    tokenizer = fuser_tokenizer()
    model = T5ForConditionalGeneration(T5Config(**T5_SETTINGS, vocab_size=len(tokenizer)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
