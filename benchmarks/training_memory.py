"""How much memory a step of training a ranker takes: counted for its weights, measured for its activations.

    python benchmarks/training_memory.py --hidden 1024 --layers 24 --length 384 --batch 4

The encoder has the shape of DeBERTa-v3 with random weights. On a CPU the peak is that of the process, in float32; on
CUDA that of the allocator, under bf16 autocast. Prints a table.
"""

import argparse
import resource

import torch
from cards import markdown_table
from transformers import DebertaV2Config

from blender_hf import PairRanker, PairRankerConfig

GIB = 2**30
# Bytes a weight in float32: itself and its gradient, and what the optimiser keeps.
OPTIMISERS = {"AdamW": 16, "Adafactor": 8}
VOCABULARY = 128104


def main() -> None:
    options = arguments()
    model = build(options)
    n_weights = sum(weight.numel() for weight in model.parameters())
    rows = [[f"weights, gradients and {name}", f"{n_weights * size / GIB:.2f}"] for name, size in OPTIMISERS.items()]
    before = peak()
    for checkpointing in (True, False) if options.both else (True,):
        name = "activations with checkpointing" if checkpointing else "activations without"
        rows.append([name, f"{activations(model, options, checkpointing, before) / GIB:.2f}"])
    print(f"{n_weights / 1e6:.0f} million weights, {options.batch} pairs of {options.length} tokens\n")
    print(markdown_table(["GiB", "memory"], rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--length", type=int, default=384, help="tokens of a pair")
    parser.add_argument("--batch", type=int, default=4, help="pairs")
    parser.add_argument("--both", action="store_true", help="also without gradient checkpointing")
    return parser.parse_args()


def build(options: argparse.Namespace) -> PairRanker:
    encoder = DebertaV2Config(
        vocab_size=VOCABULARY,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        intermediate_size=4 * options.hidden,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    )
    ids = {"source_token_id": 1, "candidate1_token_id": 2, "candidate2_token_id": 3}
    model = PairRanker(PairRankerConfig(backbone_config=encoder, **ids)).train()
    return model.cuda() if torch.cuda.is_available() else model


def activations(model: PairRanker, options: argparse.Namespace, checkpointing: bool, before: int) -> int:
    """Return by how much a forward and a backward pass raise the peak, gradients left out."""
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()
    device = model.device
    ids = torch.randint(10, VOCABULARY, (options.batch, options.length), device=device)
    ids[:, 0], ids[:, 40], ids[:, options.length // 2] = 1, 2, 3
    labels = torch.rand(options.batch, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss = model(ids, torch.ones_like(ids), labels=labels).loss
    loss.backward()
    gradients = sum(weight.grad.numel() * 4 for weight in model.parameters() if weight.grad is not None)
    model.zero_grad(set_to_none=True)
    return peak() - before - gradients


def peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
