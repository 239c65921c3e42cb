"""A small GenFuser made from nothing, with a tokenizer of its own.

A small model can't learn to write in hours, but it can learn to select and to merge. The weights start as a copying
machine, see `copying_init`, and training teaches what to copy and when to stop.
"""

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

from blender_hf.modeling import GenFuser, GenFuserConfig

SENTINELS = [f"<extra_id_{k}>" for k in range(100)]
HEAD_WIDTH = 64
LEAST_WIDTH = 3 * HEAD_WIDTH  # what `copying_init` reads, writes and passes on, side by side
# Longer than what it is trained on: its positions are relative, and what guides its choice knows no length.
MAX_SOURCE_LENGTH, MAX_CANDIDATE_LENGTH, MAX_NEW_TOKENS = 2048, 640, 768


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a cased byte-level tokenizer with the special tokens of T5; no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", "<unk>", *SENTINELS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SENTINELS,
        clean_up_tokenization_spaces=False,
        add_prefix_space=True,  # stated, for else transformers 4 overrules what the tokenizer has
        model_max_length=MAX_SOURCE_LENGTH,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, *, d_model: int, layers: int) -> GenFuser:
    """Make an untrained small fuser that already copies."""
    model = GenFuser(
        GenFuserConfig(
            vocab_size=len(tokenizer),
            d_model=d_model,
            d_kv=HEAD_WIDTH,
            d_ff=4 * d_model,
            num_heads=d_model // HEAD_WIDTH,
            num_layers=layers,
            num_decoder_layers=layers,
            feed_forward_proj="relu",
            dropout_rate=0.0,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            max_candidate_length=MAX_CANDIDATE_LENGTH,
            faithful=True,
            faithful_least_share=1.0,
            # Chosen on dev data, see the card of gen-fuser-mini.
            faithful_coherence=12.0,
            faithful_agreement=12.0,
            faithful_consensus=60.0,
            faithful_most_repeated=0.7,
        )
    )
    copying_init(model)
    model.generation_config = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS,
        num_beams=1,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return model


@torch.no_grad()
def copying_init(model: GenFuser) -> None:
    """Set weights so that the untrained model continues what it has written as its input does.

    One head of the encoder's first layer looks at the token before, and writes it into a subspace of the state. One
    head of the decoder's last cross-attention looks for the place whose token before is the token just written, and
    passes on the token of that place, which the tied output layer turns into a logit. These are the two steps of an
    induction head (Olsson et al. 2022, arXiv 2209.11895), given instead of waited for.
    """
    width, size = model.config.d_model, model.config.d_kv
    basis = torch.linalg.qr(torch.randn(width, width)).Q.T
    read, write, value = basis[:size], basis[size : 2 * size], basis[2 * size : 3 * size]
    encoder = model.encoder.block[0].layer[0].SelfAttention
    encoder.relative_attention_bias.weight[:, 0] = -4.0
    encoder.relative_attention_bias.weight[1, 0] = 8.0  # bucket 1 is the place just before
    encoder.q.weight[:size] = 0.0
    encoder.v.weight[:size] = read
    encoder.o.weight[:, :size] = write.T
    cross = model.decoder.block[-1].layer[1].EncDecAttention
    cross.q.weight[:size] = read
    cross.k.weight[:size] = write
    cross.v.weight[:size] = value
    cross.o.weight[:, :size] = 2.0 * value.T
    for block in (*model.encoder.block, *model.decoder.block):
        nn.init.normal_(block.layer[-1].DenseReluDense.wo.weight, std=0.01)
