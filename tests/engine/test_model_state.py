"""Models as they are handed in: in training mode, in half precision, with a tokenizer that is not quite theirs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    CanineTokenizer,
    set_seed,
)

from blender_hf import Blender, CheckpointError, PairRanker, PairRankerProcessor, locate
from blender_hf.engine.fusion import Fuser
from blender_hf.engine.model_state import evaluating
from blender_hf.inputs import make_item
from blender_hf.integrations.trl import pairwise_reward
from blender_hf.loading.baselines import DualEncoder
from tests.conftest import SMALL, build_fuser, build_ranker, encoder_tokenizer
from tests.engine.test_pointwise import encoder_model, pair_tokenizer
from tests.stacks.families import config_of

PROMPT, ANSWERS = "How do I boil an egg?", ["Boil water. Put the egg in.", "Eggs are laid by hens.", "No."]
HIGH = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}


def reward_model(n_rows: int | None = None, **settings: Any) -> Any:
    set_seed(0)
    tokenizer = encoder_tokenizer()
    config = BertConfig(
        **SMALL, **{"vocab_size": n_rows or len(tokenizer), "num_labels": 1, "pad_token_id": 0, **settings}
    )
    return BertForSequenceClassification(config).eval(), tokenizer


@pytest.fixture
def dropping() -> Any:
    """A ranker that drops half of its states when it is trained."""
    model, processor = build_ranker("bert")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    return model, processor


def test_a_model_that_is_being_trained_scores_as_one_that_is_not(dropping: Any) -> None:
    model, processor = dropping
    expected = Blender(model, processor).rank(PROMPT, ANSWERS).scores
    blender = Blender(model.train(), processor)
    assert not model.training, "it is put into evaluation mode"
    model.train()  # as a trainer does it again
    reward = pairwise_reward(blender)
    assert [blender.rank(PROMPT, ANSWERS).scores for _ in range(2)] == [expected] * 2
    assert reward([PROMPT] * 3, ANSWERS) == reward([PROMPT] * 3, ANSWERS)
    assert model.training, "and its training goes on as it was"
    assert all(module.training for module in model.modules())


def test_a_part_in_training_mode_counts_and_keeps_it(dropping: Any) -> None:
    model, processor = dropping
    blender = Blender(model, processor)
    expected = blender.rank(PROMPT, ANSWERS).scores
    model.backbone.train()
    assert blender.rank(PROMPT, ANSWERS).scores == expected
    assert model.backbone.training
    assert not model.head.training
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.backbone.training


def test_reward_models_fusers_and_baselines_too() -> None:
    model, tokenizer = reward_model(**HIGH)
    expected = Blender(model, tokenizer).rank(PROMPT, ANSWERS).scores
    blender = Blender(model, tokenizer)
    model.train()
    assert blender.rank(PROMPT, ANSWERS).scores == expected
    fuser, processor = build_fuser(dropout_rate=0.5)
    item = make_item(PROMPT, ANSWERS)
    written = Fuser(fuser, processor)
    texts = written.fuse([item])
    fuser.train()
    assert written.fuse([item]) == texts
    encoder = DualEncoder(model.bert.train(), tokenizer)
    assert encoder.scores([item]) == encoder.scores([item])


def test_half_precision_on_a_cpu_is_computed_in_full() -> None:
    """As transformers 5 loads the bundled checkpoints by itself, and 4 does not."""
    found = [
        Blender(
            PairRanker.from_pretrained(locate("pair-ranker-mini"), **options),
            PairRankerProcessor.from_pretrained(locate("pair-ranker-mini")),
        ).rank(PROMPT, ANSWERS)
        for options in ({}, {"dtype": torch.float16}, {"dtype": torch.float32})
    ]
    assert found[0].scores == found[1].scores == found[2].scores
    fuser, reader = build_fuser()
    assert Fuser(fuser.half(), reader).model.dtype == torch.float32


@pytest.mark.parametrize(("n_types", "expected"), [(1, 0), (2, 2), (4, 2)])
def test_types_go_as_far_as_the_model_has_them(n_types: int, expected: int) -> None:
    """With a tokenizer that makes two, asked or not."""
    model, tokenizer = reward_model(type_vocab_size=n_types)
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair=pair, special_tokens=ends)
    blender: Any = Blender(model, tokenizer)
    [[row]] = blender.scorer.inputs.encode([make_item("p", ["a"])])
    assert len(set(row.token_type_ids)) == expected
    inputs = {"input_ids": torch.tensor([row.input_ids])}
    if expected:
        inputs["token_type_ids"] = torch.tensor([row.token_type_ids])
    assert blender.rank("p", ["a", "b"]).scores[0] == pytest.approx(float(model(**inputs).logits), abs=1e-5)


@pytest.mark.parametrize("wrapped", ["compiled", "PEFT", "both"])
def test_a_model_in_a_wrapper_scores_as_it_does_without(wrapped: str) -> None:
    """A BERT in a wrapper got no token types."""
    tokenizer = pair_tokenizer()
    model = encoder_model(tokenizer)
    expected = Blender(model, tokenizer).rank(PROMPT, ANSWERS).scores
    if wrapped != "compiled":  # an adapter that is not trained yet changes nothing
        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    if wrapped != "PEFT":
        model = torch.compile(model, backend="eager")
    assert Blender(model, tokenizer).rank(PROMPT, ANSWERS).scores == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("wrapped", ["compiled", "PEFT"])
def test_a_pair_ranker_and_a_fuser_in_a_wrapper_too(wrapped: str) -> None:
    def wrap(model: Any, target: str) -> Any:
        if wrapped == "PEFT":
            return get_peft_model(model, LoraConfig(target_modules=[target]))
        return torch.compile(model, backend="eager")

    (ranker, reader), (fuser, processor) = build_ranker("bert"), build_fuser()
    expected = Blender(ranker, reader, fuser, processor)
    scores, text = expected.rank(PROMPT, ANSWERS).scores, expected.fuse(PROMPT, ANSWERS).text
    found = Blender(wrap(ranker, "query"), reader, wrap(fuser, "q"), processor)
    assert found.rank(PROMPT, ANSWERS).scores == pytest.approx(scores, abs=1e-5)
    assert found.fuse(PROMPT, ANSWERS).text == text


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused() -> None:
    model, tokenizer = reward_model(n_rows=300)
    with pytest.raises(CheckpointError, match=r"the model 300 embeddings, none for .*not of one model"):
        Blender(model, tokenizer)


def test_a_padding_token_that_no_text_becomes_may_be_beyond() -> None:
    model, tokenizer = reward_model()
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    assert len(Blender(model, tokenizer).rank(PROMPT, ANSWERS).scores) == 3


def test_a_marker_without_an_embedding_is_named_before_the_model_runs(tmp_path: Path) -> None:
    model, processor = build_ranker()
    model.resize_token_embeddings(len(processor.tokenizer) - 4)
    with pytest.raises(CheckpointError, match=r"the tokenizer made the id .*load both from one checkpoint"):
        Blender(model, processor).rank(PROMPT, ANSWERS)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("convbert", {"embedding_size": 32}),
        ("fnet", {"max_position_embeddings": 128}),
        ("nystromformer", {"segment_means_seq_len": 64}),
        ("yoso", {}),
        ("canine", {"num_hash_functions": 4, "num_hash_buckets": 512, "local_transformer_stride": 16}),
    ],
)
def test_a_model_that_reads_padding_gets_none(kind: str, settings: dict[str, Any]) -> None:
    """A score depended on the other candidates; on transformers 4, FNet failed, and CANINE on both."""
    tokenizer: Any = CanineTokenizer() if kind == "canine" else encoder_tokenizer()
    config = AutoConfig.for_model(kind, **{**SMALL, **settings}, vocab_size=len(encoder_tokenizer()), num_labels=1)
    set_seed(0)
    blender = Blender(AutoModelForSequenceClassification.from_config(config), tokenizer)
    together = blender.rank(PROMPT, [*ANSWERS, "Eggs " * 30]).scores
    alone = [blender.rank(PROMPT, [answer, "?"]).scores[0] for answer in ANSWERS]
    assert together[:3] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("kind", ["ibert", "lilt", "luke"])
def test_a_long_input_is_cut_where_positions_begin_after_padding(kind: str) -> None:
    tokenizer = encoder_tokenizer()
    config = AutoConfig.for_model(
        kind, **{**SMALL, "hidden_size": 48}, vocab_size=len(tokenizer), num_labels=1, pad_token_id=1
    )
    blender = Blender(AutoModelForSequenceClassification.from_config(config), tokenizer)
    assert blender.rank(PROMPT, ["Eggs " * 200, "No."]).truncated


@pytest.mark.parametrize("kind", ["bart", "mt5", "t5"])
def test_the_token_that_a_score_is_read_at_is_written_or_missed_early(kind: str) -> None:
    """It was an error of transformers, "Each example must contain at least one <eos> token"."""
    tokenizer = encoder_tokenizer()
    end = tokenizer.sep_token_id
    config = config_of(kind, len(tokenizer), num_labels=1, eos_token_id=end)
    set_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(CheckpointError, match=rf"eos_token_id={end}\), and its tokenizer writes none: load the tok"):
        Blender(model, tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", end)]
    )
    together = Blender(model, tokenizer).rank(PROMPT, ANSWERS).scores
    # Rows of a chat have any number of turns.
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '[SEP]' }}{% endfor %}"
    prompts = [[{"role": "user", "content": PROMPT}], [{"role": "user", "content": turn} for turn in ("Hi", PROMPT)]]
    one, two = Blender(model, tokenizer).rank(prompts, [ANSWERS] * 2)
    assert one.scores == pytest.approx(together, abs=1e-5)
    assert two.scores != pytest.approx(together, abs=1e-2)
