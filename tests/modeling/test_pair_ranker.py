"""The model: its numbers, its loss, and how it is saved and loaded."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoProcessor, BertConfig, BertModel

from blender_hf import PairRanker, PairRankerConfig, PairRankerProcessor
from tests.conftest import BACKBONES, LENGTHS, SMALL, backbone_config, build_ranker, example_texts, ranker_processor
from tests.stacks.families import DECODERS, ENCODERS, MadeFrom, config_of, random_model

TEXTS = example_texts()
PROMPTS = [TEXTS[0], "hello!", ""]
FIRST = [TEXTS[1][:200], "hi!", "a"]
SECOND = [TEXTS[2][:60], "f**k off!", ""]


def reference_logits(model: PairRanker, input_ids: torch.Tensor) -> torch.Tensor:
    """The computation of the PairRM-hf card, pair by pair, in plain torch: the mean over tasks of left minus right."""
    head = [model.head.dense.weight, model.head.dense.bias, model.head.out_proj.weight, model.head.out_proj.bias]

    def score(source: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
        inner = torch.tanh(functional.linear(torch.cat([source, candidate]), *head[:2]))
        return functional.linear(inner, *head[2:])

    logits = []
    for ids in input_ids:
        hidden = model.backbone(ids[None]).last_hidden_state[0]
        config = model.config
        markers = (config.source_token_id, config.candidate1_token_id, config.candidate2_token_id)
        source, left, right = (hidden[ids.tolist().index(marker)] for marker in markers)
        logits.append((score(source, left) - score(source, right)).mean())
    return torch.stack(logits)


@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("n_tasks", [1, 3])
def test_logits_are_those_of_the_reference_computation(kind: str, n_tasks: int) -> None:
    model, processor = build_ranker(kind, n_tasks=n_tasks)
    for texts in zip(PROMPTS, FIRST, SECOND, strict=True):
        batch = processor(*([text] for text in texts))
        with torch.no_grad():
            output = model(**batch)
            torch.testing.assert_close(output.logits, reference_logits(model, batch["input_ids"]), atol=1e-5, rtol=1e-5)
        assert output.task_logits.shape == (1, n_tasks)


@pytest.mark.parametrize("kind", BACKBONES)
def test_padding_changes_nothing(kind: str) -> None:
    model, processor = build_ranker(kind)
    with torch.no_grad():
        together = model(**processor(PROMPTS, FIRST, SECOND)).logits
        alone = [
            model(**processor(*([text] for text in texts))).logits for texts in zip(PROMPTS, FIRST, SECOND, strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["marker", "mean"])
@pytest.mark.parametrize("kind", BACKBONES)
def test_forward_can_be_exported_with_free_axes(kind: str, pooling: str) -> None:
    """A branch on the data would fail here, or freeze the lengths of the example."""
    model, processor = build_ranker(kind, pooling=pooling)
    model.double()  # what is exported attends, and rounds, otherwise; it keeps a scale in float32
    example = dict(processor(PROMPTS[:2], FIRST[:2], SECOND[:2]))
    axes = {0: torch.export.Dim("batch", min=2, max=64), 1: torch.export.Dim("length", min=8, max=96)}
    program = torch.export.export(model, (), example, dynamic_shapes=_shapes(axes), strict=False)
    other = dict(processor(PROMPTS, SECOND, FIRST))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(**other)["logits"], model(**other).logits, atol=1e-6, rtol=1e-6)


def _shapes(axes: dict[int, object]) -> dict[str, object]:
    return {"input_ids": axes, "attention_mask": axes}


def test_loss_is_the_multi_task_binary_cross_entropy() -> None:
    model, processor = build_ranker(n_tasks=2)
    batch = processor(PROMPTS[:2], FIRST[:2], SECOND[:2])
    labels = torch.tensor([[1.0, 0.25], [0.5, 0.0]])
    output = model(**batch, labels=labels)
    by_hand = [
        -(y * math.log(1 / (1 + math.exp(-logit))) + (1 - y) * math.log(1 / (1 + math.exp(logit))))
        for row, targets in zip(output.task_logits.tolist(), labels.tolist(), strict=True)
        for logit, y in zip(row, targets, strict=True)
    ]
    assert output.loss.item() == pytest.approx(sum(by_hand) / 4, rel=1e-5)


def test_one_label_a_pair_stands_for_all_tasks() -> None:
    model, processor = build_ranker(n_tasks=3)
    batch = processor(PROMPTS[:2], FIRST[:2], SECOND[:2])
    one = model(**batch, labels=torch.tensor([1, 0])).loss
    many = model(**batch, labels=torch.tensor([[1.0] * 3, [0.0] * 3])).loss
    assert one.item() == many.item()


def test_a_training_step_lowers_the_loss_through_gradient_checkpointing() -> None:
    model, processor = build_ranker()
    model.train()
    model.gradient_checkpointing_enable()
    batch = {**processor(PROMPTS[:2], FIRST[:2], SECOND[:2]), "labels": torch.tensor([1.0, 0.0])}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_return_dict_false_gives_a_tuple() -> None:
    model, processor = build_ranker()
    batch = processor(["a"], ["b"], ["c"])
    logits, task_logits = model(**batch, return_dict=False)
    assert logits.shape == (1,)
    assert task_logits.shape == (1, 1)


@pytest.mark.parametrize("kind", BACKBONES)
def test_saved_and_loaded_gives_the_same_logits(kind: str, tmp_path: Path) -> None:
    model, processor = build_ranker(kind)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, info = PairRanker.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    by_auto = AutoModel.from_pretrained(tmp_path)
    assert isinstance(by_auto, PairRanker)
    batch = AutoProcessor.from_pretrained(tmp_path)(PROMPTS, FIRST, SECOND)
    with torch.no_grad():
        expected = model(**processor(PROMPTS, FIRST, SECOND)).logits
        for other in (loaded, by_auto):
            torch.testing.assert_close(other(**batch).logits, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_every_part_loads_in_the_precision_that_was_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    """The encoder's configuration once knew a precision of its own, and the head another."""
    model, _ = build_ranker()
    model.config.backbone_config.dtype = torch.float32
    model.half().save_pretrained(tmp_path)
    assert {p.dtype for p in PairRanker.from_pretrained(tmp_path, dtype=dtype).parameters()} == {dtype}
    assert {p.dtype for p in PairRanker.from_pretrained(tmp_path, dtype="auto").parameters()} == {torch.float16}


def test_weights_that_are_missing_unexpected_or_misshapen_are_an_error(tmp_path: Path) -> None:
    model, _ = build_ranker()
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    damages = {
        "head.dense.weight": {k: v for k, v in weights.items() if k != "head.dense.weight"},
        "head.extra": {**weights, "head.extra": torch.zeros(1)},
        "head.out_proj.weight": {**weights, "head.out_proj.weight": torch.zeros(5, 32)},
    }
    for name, damaged in damages.items():
        save_file(damaged, path, metadata={"format": "pt"})
        with pytest.raises(OSError, match=name):
            PairRanker.from_pretrained(tmp_path)


def test_a_plain_encoder_is_not_a_ranker(tmp_path: Path) -> None:
    BertModel(BertConfig(**SMALL, vocab_size=50)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'bert', not a PairRanker.*from_backbone"):
        PairRanker.from_pretrained(tmp_path)


def test_from_backbone_keeps_the_weights_of_the_encoder(tmp_path: Path) -> None:
    encoder = BertModel(BertConfig(**SMALL, vocab_size=596))
    encoder.save_pretrained(tmp_path)
    processor = ranker_processor()
    n_added = len(processor.tokenizer) - 596
    model = PairRanker.from_backbone(str(tmp_path), n_added_tokens=n_added, **processor.special_token_ids())
    assert model.training
    assert model.backbone.pooler is None
    embeddings = model.backbone.embeddings.word_embeddings.weight
    assert embeddings.shape[0] == len(processor.tokenizer)
    torch.testing.assert_close(embeddings[:596], encoder.embeddings.word_embeddings.weight)
    layer = encoder.encoder.layer[1].output.dense.weight
    torch.testing.assert_close(model.backbone.encoder.layer[1].output.dense.weight, layer)


def test_the_configuration_survives_and_names_no_path(tmp_path: Path) -> None:
    config = PairRankerConfig(
        backbone_config=BertConfig(**SMALL, name_or_path=str(tmp_path)), n_tasks=4, source_truncation_side="left"
    )
    config.save_pretrained(tmp_path)
    assert str(tmp_path) not in (tmp_path / "config.json").read_text(encoding="utf-8")
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, PairRankerConfig)
    assert loaded.backbone_config.hidden_size == 32
    assert (loaded.n_tasks, loaded.source_truncation_side) == (4, "left")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_pair_length": 4}, "max_pair_length=4"),
        ({"max_pair_length": 100, "max_source_length": 99}, "max_source_length=99"),
        ({"source_truncation_side": "middle"}, "'middle'.*left, right"),
        ({"n_tasks": 0}, "n_tasks=0"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairRankerConfig(**option)


def test_the_attention_implementation_reaches_the_backbone(tmp_path: Path) -> None:
    model, processor = build_ranker("bert")
    model.save_pretrained(tmp_path)
    eager = PairRanker.from_pretrained(tmp_path, attn_implementation="eager")
    assert eager.backbone.config._attn_implementation == "eager"
    batch = processor(PROMPTS, FIRST, SECOND)
    with torch.no_grad():
        torch.testing.assert_close(eager(**batch).logits, model(**batch).logits, atol=1e-5, rtol=1e-5)


def test_more_tokens_are_saved_and_loaded(tmp_path: Path) -> None:
    model, _ = build_ranker()
    n_tokens = model.get_input_embeddings().num_embeddings + 3
    model.resize_token_embeddings(n_tokens)
    model.save_pretrained(tmp_path)
    assert PairRanker.from_pretrained(tmp_path).get_input_embeddings().num_embeddings == n_tokens


def test_saved_settings_are_plain(tmp_path: Path) -> None:
    _, processor = build_ranker()
    assert isinstance(processor, PairRankerProcessor)
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text(encoding="utf-8"))
    assert settings["max_pair_length"] == 96
    assert not [name for name in settings if name.startswith("_")]


@pytest.mark.parametrize("kind", BACKBONES)
def test_pooling_by_the_mean_takes_each_part_and_no_padding(kind: str) -> None:
    model, processor = build_ranker(kind, pooling="mean")
    inputs = processor(["hi", "a longer prompt, of more words"], ["yes", "no, and why"], ["", "perhaps"])
    states: list[torch.Tensor] = []
    model.backbone.register_forward_hook(lambda module, given, output: states.append(output.last_hidden_state))
    with torch.no_grad():
        logits = model(**inputs).logits
    markers = list(processor.special_token_ids().values())
    for row, hidden, mask, logit in zip(inputs["input_ids"], states[0], inputs["attention_mask"], logits, strict=True):
        places = [row.tolist().index(marker) for marker in markers]
        ends = [*places[1:], int(mask.sum())]
        source, first, second = (hidden[place:end].mean(dim=0) for place, end in zip(places, ends, strict=True))
        scores = [model.head(source[None], part[None]).mean() for part in (first, second)]
        torch.testing.assert_close(logit, scores[0] - scores[1], atol=1e-5, rtol=1e-5)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="pooling='cls'; use one of marker, mean"):
        PairRankerConfig(pooling="cls")


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2"])
def test_a_table_of_positions_is_repeated_until_it_reaches(kind: str, tmp_path: Path) -> None:
    encoder = AutoModel.from_config(backbone_config(kind, 300))
    encoder.save_pretrained(tmp_path)
    markers = {"source_token_id": 1, "candidate1_token_id": 2, "candidate2_token_id": 3}
    ranker = PairRanker.from_backbone(tmp_path, n_positions=300, **markers).eval()
    old = getattr(encoder.embeddings, "position_embeddings", None)
    if old is not None:
        unused = 0 if kind == "bert" else 1 + old.padding_idx
        rows = len(old.weight) - unused
        new = ranker.backbone.embeddings.position_embeddings.weight
        assert len(new) == 300 + unused
        assert torch.equal(new[: len(old.weight)], old.weight)
        assert torch.equal(new[unused + rows], old.weight[unused])
    ids = torch.randint(4, 300, (1, 300))
    ids[0, [0, 100, 200]] = torch.tensor([1, 2, 3])
    with torch.no_grad():
        assert ranker(ids).logits.isfinite().all()
    ranker.save_pretrained(tmp_path / "ranker")
    again = PairRanker.from_pretrained(tmp_path / "ranker")
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, ranker(ids).logits)


@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_a_logit_depends_on_the_prompt_and_on_both_candidates(family: str) -> None:
    """A causal encoder has not read the second candidate where the marker of that one stands."""
    processor = ranker_processor()
    settings = {**processor.special_token_ids(), **LENGTHS, "initializer_range": 0.5}
    backbone = config_of(family, len(processor.tokenizer))
    config = PairRankerConfig(backbone_config=backbone, pooling="mean" if family in DECODERS else "marker", **settings)
    model = random_model(MadeFrom(PairRanker), config)
    texts = ("What is it?", "Boil the water first.", "Bananas are yellow.")

    def logit(*texts: str) -> float:
        with torch.no_grad():
            return float(model(**processor(*([text] for text in texts))).logits)

    for place in range(3):
        changed = [text if n != place else "The hen is asleep and long." for n, text in enumerate(texts)]
        assert abs(logit(*changed) - logit(*texts)) > 1e-4
