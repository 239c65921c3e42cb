"""Makes the checkpoints of the matrix, and records what they compute where they are made.

    python -m tests.stacks.make build/stacks/5

Each version of transformers makes its own folder; the tests of either read both.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from blender_hf import GenFuser, GenFuserConfig, GenFuserProcessor, PairRanker, PairRankerConfig, PairRankerProcessor
from blender_hf.modeling.configuration_pair_ranker import SPECIAL_TOKENS
from tests.conftest import example_texts
from tests.stacks.families import DECODERS, ENCODERS, MadeFrom, config_of, random_model
from tests.stacks.tokenizer_kinds import write_tokenizer

RECORD = "expected.json"
PROMPT = example_texts()[0]
CANDIDATES = ("Où est le café ? 12 345", "Bananas are yellow, and  long.", example_texts()[1][:90])
TEXTS = (PROMPT, *CANDIDATES, "ÜBER\u00a0ﬁne cafés… 2024")
N_NEW_TOKENS = 12
LENGTHS = {"max_pair_length": 192, "max_source_length": 64, "max_candidate_length": 64}


@dataclass(frozen=True)
class Case:
    """A checkpoint: what kind of model it is, of which family, and with which tokenizer."""

    kind: str
    family: str
    tokenizer: str
    saved: bool = True  # whether the tokenizer's files are those that transformers writes, or somebody's own
    generation: tuple[tuple[str, Any], ...] = ()  # settings of generation that the checkpoint states

    def __str__(self) -> str:
        written = "saved" if self.saved else "as it is"
        return "_".join((self.kind, self.family, self.tokenizer, written, *(name for name, _ in self.generation)))


# The tokenizer that goes with each family.
TOKENIZER_OF = {
    **dict.fromkeys(("bert", "bert-one-type", "distilbert", "electra", "mpnet"), "bert"),
    **{name: name for name in ("albert", "rembert", "roberta", "xlm-roberta", "xlnet", "gpt2")},
    **dict.fromkeys(("gpt_neox", "modernbert-decoder", "stablelm"), "neox"),
    **dict.fromkeys(("qwen2", "qwen3", "qwen3_moe"), "qwen"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3"), "gemma"),
    **dict.fromkeys(("llama", "llama-scaled", "llama-linear", "mistral", "phi3", "phi3-long"), "llama"),
    **dict.fromkeys(("t5", "t5-untied", "mt5"), "t5"),
    "bart": "roberta",
    "deberta-v2": "deberta",
    "modernbert": "generic",
    **dict.fromkeys(("gpt2-scaled", "olmo2", "olmo3"), "gpt2"),
}
# Files in the form of transformers 5, which 4 does not load by itself.
OF_5 = ("backend", "qwen-digits")
# transformers 4 has no sequence classification for them.
WITHOUT_SCORE = ("olmo2", "olmo3")
FUSERS = ("t5", "t5-untied", "mt5")
# Families of rankers that encode each candidate by itself.
SEPARATE = ("bert", "roberta", "modernbert", "deberta-v2", "mpnet", "llama", "qwen3")
# Families of those that read a chat template, which is this one, of the ends of texts that their tokenizers have.
CHAT = ("llama", "qwen2")
CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
# Tokenizers that are not what their class would make of them, of a family that reads them.
UNUSUAL = {
    "bert": ("bert-cased", "bert-stated", "bert-accents", "electra-accents", "generic", "backend", "without-types"),
    "gpt2": ("gpt2-digits", "gpt2-prefix", "gpt2-stated", "generic"),
    "llama": ("llama-plain", "llama-stated", "llama-bytes"),
    "qwen2": ("qwen-digits",),
    "roberta": ("roberta-prefix", "bert"),
    "xlm-roberta": ("xlm-roberta-prefix",),
}


def cases() -> Iterator[Case]:
    """Yield all checkpoints of the matrix."""
    for family in (*ENCODERS, *DECODERS, "bert-one-type"):
        if family in WITHOUT_SCORE:
            continue
        yield Case("reward", family, TOKENIZER_OF[family])
    for family, names in UNUSUAL.items():
        yield from (Case("reward", family, name, saved=False) for name in (TOKENIZER_OF[family], *names))
        yield from (Case("reward", family, name) for name in names if name not in OF_5)
    yield from (Case("pair", family, TOKENIZER_OF[family]) for family in (*ENCODERS, *DECODERS))
    yield from (Case("separate", family, TOKENIZER_OF[family]) for family in SEPARATE)
    yield from (Case("chat", family, TOKENIZER_OF[family]) for family in CHAT)
    yield Case("pair", "bert", "bert-accents", saved=False)
    yield Case("pair", "xlm-roberta", "xlm-roberta-prefix", saved=False)
    for family in (*DECODERS, *FUSERS, "bart"):
        yield Case("language", family, TOKENIZER_OF[family])
    stated = (("num_beams", 2), ("repetition_penalty", 1.7), ("no_repeat_ngram_size", 2))
    yield from (Case("language", family, TOKENIZER_OF[family], generation=stated) for family in ("llama", "bart"))
    yield from (Case("language", "llama", name, saved=False) for name in ("llama-plain", "llama-bytes"))
    yield from (Case("fuser", family, "t5") for family in ("own", *FUSERS))
    for family in ("albert", "bert", "electra", "modernbert", "roberta", "xlm-roberta"):
        yield Case("masked", family, TOKENIZER_OF[family])
    yield from (Case("embedding", family, TOKENIZER_OF[family]) for family in (*ENCODERS, "llama", "gpt2"))
    yield from (Case("bartscore", family, TOKENIZER_OF[family]) for family in ("bart", "t5-untied", "mt5"))


def make(root: Path) -> None:
    """Make all checkpoints in a folder."""
    shutil.rmtree(root, ignore_errors=True)
    for case in cases():
        folder = root / str(case)
        made = KINDS[case.kind](folder, case)
        record = {"transformers": transformers.__version__, **made}
        (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")


def _tokens(backend: Tokenizer, texts: tuple[str, ...] = TEXTS) -> list[list[int]]:
    return [encoded.ids for encoded in backend.encode_batch(list(texts), add_special_tokens=False)]


def _saved(folder: Path, case: Case, auto_class: Any, **settings: Any) -> tuple[Tokenizer, Any]:
    """Save a random model with its tokenizer; return the backend that the files state, and the model."""
    backend = write_tokenizer(folder, case.tokenizer, saved=case.saved)
    model = random_model(auto_class, config_of(case.family, backend.get_vocab_size(), **settings))
    model.save_pretrained(folder)
    return backend, model


@torch.no_grad()
def _reward(folder: Path, case: Case) -> dict[str, Any]:
    backend, model = _saved(folder, case, AutoModelForSequenceClassification, num_labels=1)
    n_types = 9 if case.family == "xlnet" else getattr(model.config, "type_vocab_size", 0)
    scores = []
    for candidate in CANDIDATES:
        encoded = backend.encode(PROMPT, candidate)
        inputs = {"input_ids": torch.tensor([encoded.ids])}
        if n_types > 1 and case.tokenizer != "without-types":
            inputs["token_type_ids"] = torch.tensor([encoded.type_ids])
        scores.append(float(model(**inputs).logits))
    return {"tokens": _tokens(backend), "scores": scores}


def _ranker(folder: Path, case: Case, **settings: Any) -> tuple[Tokenizer, Any, list[list[int]]]:
    """Save a random ranker; return its backend, its model, and the parts that its rows are made of.

    These are the prompt, and each candidate behind the first marker and then behind the second.
    """
    backend = write_tokenizer(folder, case.tokenizer, saved=case.saved)
    backend.add_special_tokens([token for token in SPECIAL_TOKENS if backend.token_to_id(token) is None])
    markers = [backend.token_to_id(token) for token in SPECIAL_TOKENS[:3]]
    names = ("source_token_id", "candidate1_token_id", "candidate2_token_id")
    config = PairRankerConfig(
        backbone_config=config_of(case.family, backend.get_vocab_size()),
        pooling="mean" if case.family in DECODERS else "marker",
        initializer_range=0.5,
        **dict(zip(names, markers, strict=True)),
        **LENGTHS,
        **settings,
    )
    model = random_model(MadeFrom(PairRanker), config)
    model.save_pretrained(folder)
    # The files of a ranker whose tokenizer somebody changed later are his own.
    if case.saved:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        PairRankerProcessor.for_training(tokenizer, **LENGTHS).save_pretrained(folder)
    else:
        backend.save(str(folder / "tokenizer.json"))
        (folder / "processor_config.json").write_text(json.dumps({"processor_class": "PairRankerProcessor", **LENGTHS}))
    around = backend.encode("a").ids
    bare = backend.encode("a", add_special_tokens=False).ids
    start = next(n for n in range(len(around)) if around[n : n + len(bare)] == bare)
    before, after = around[:start], around[start + len(bare) :]
    first, *others = (list(ids) for ids in _tokens(backend, (PROMPT, *CANDIDATES)))
    source = [*before, markers[0], *first[: 64 - len(before) - len(after) - 1], *after]
    return backend, model, [source, *([*before, marker, *ids, *after] for marker in markers[1:] for ids in others)]


@torch.no_grad()
def _pair(folder: Path, case: Case) -> dict[str, Any]:
    backend, model, (source, *parts) = _ranker(folder, case)
    first, second = parts[: len(CANDIDATES)], parts[len(CANDIDATES) :]
    rows = [[*source, *first[one], *second[two]] for one, two in ((0, 1), (1, 0), (0, 2), (2, 1))]
    return {"tokens": _tokens(backend), "scores": [float(model(torch.tensor([row])).logits) for row in rows]}


@torch.no_grad()
def _separate(folder: Path, case: Case) -> dict[str, Any]:
    settings = {"candidate_encoding": "separate", "preference_dim": 2, "shared_prompt": case.family == "bert"}
    backend, model, (source, *parts) = _ranker(folder, case, **settings)
    encodings = [model(torch.tensor([[*source, *part]])).encodings for part in parts[: len(CANDIDATES)]]
    return {"tokens": _tokens(backend), "scores": torch.cat(encodings).flatten().tolist()}


@torch.no_grad()
def _chat(folder: Path, case: Case) -> dict[str, Any]:
    backend = write_tokenizer(folder, case.tokenizer, saved=True)
    config = PairRankerConfig(
        backbone_config=config_of(case.family, backend.get_vocab_size()),
        candidate_encoding="separate",
        layout="chat",
        pooling="last",
        initializer_range=0.5,
        **LENGTHS,
    )
    model = random_model(MadeFrom(PairRanker), config)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    PairRankerProcessor(tokenizer, layout="chat", **LENGTHS).save_pretrained(folder)
    [prompt] = _tokens(backend, (f"<s>user\n{PROMPT}</s>\n<s>assistant\n",))
    end = backend.token_to_id("</s>")
    n_after = len(prompt) - prompt.index(end)  # the end of the user's turn is kept, the text before it cut
    source = [*prompt[: 64 - n_after], *prompt[-n_after:]] if len(prompt) > 64 else prompt
    encodings = []
    for ids in _tokens(backend, CANDIDATES):
        types = torch.tensor([[0] * len(source) + [1] * (len(ids) + 1)])
        encodings.append(model(torch.tensor([[*source, *ids, end]]), token_type_ids=types).encodings)
    return {"tokens": _tokens(backend), "scores": torch.cat(encodings).flatten().tolist()}


@torch.no_grad()
def _language(folder: Path, case: Case) -> dict[str, Any]:
    reads = case.family in (*FUSERS, "bart")
    backend, model = _saved(folder, case, AutoModelForSeq2SeqLM if reads else AutoModelForCausalLM)
    model.generation_config.update(**dict(case.generation))
    model.generation_config.save_pretrained(folder)
    written = []
    for text in CANDIDATES:
        ids = backend.encode(text).ids
        options = {"max_new_tokens": N_NEW_TOKENS, "do_sample": False, **dict(case.generation)}
        given = torch.tensor([ids])
        found = model.generate(given, attention_mask=torch.ones_like(given), **options)[0]
        written.append(backend.decode(found[0 if reads else len(ids) :].tolist()).strip())
    return {"tokens": _tokens(backend), "texts": written}


@torch.no_grad()
def _fuser(folder: Path, case: Case) -> dict[str, Any]:
    backend = write_tokenizer(folder, case.tokenizer, saved=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra_id_{n}>" for n in range(8)], special_tokens=True)
    config = config_of("t5-untied" if case.family == "own" else case.family, len(tokenizer))
    if case.family == "own":
        settings = {name: value for name, value in config.to_dict().items() if name != "model_type"}
        model = random_model(MadeFrom(GenFuser), GenFuserConfig(**settings))
    else:
        model = random_model(AutoModelForSeq2SeqLM, config)
    model.save_pretrained(folder)
    processor = GenFuserProcessor(tokenizer)
    (processor if case.family == "own" else tokenizer).save_pretrained(folder)
    ids = processor.encode(PROMPT, CANDIDATES).input_ids
    found = model.generate(torch.tensor([ids]), max_new_tokens=N_NEW_TOKENS, do_sample=False)[0]
    return {"tokens": _tokens(backend), "ids": ids, "texts": [processor.decode_text(found)]}


def _scorer(folder: Path, case: Case, auto_class: Any, scorer: Callable[[Any, Any], list[float]]) -> dict[str, Any]:
    backend, model = _saved(folder, case, auto_class)
    return {"tokens": _tokens(backend), "scores": scorer(model, backend)}


def _around(backend: Tokenizer, text: str) -> torch.Tensor:
    return torch.tensor([backend.encode(text).ids])


@torch.no_grad()
def _masked(model: Any, backend: Tokenizer) -> list[float]:
    mask = next(backend.token_to_id(token) for token in ("[MASK]", "<mask>") if backend.token_to_id(token) is not None)
    means = []
    for text in CANDIDATES:
        ids = _around(backend, text)
        places = range(1, ids.shape[1] - 1)
        rows = ids.repeat(len(places), 1)
        rows[range(len(places)), list(places)] = mask
        found = model(rows).logits.log_softmax(-1)
        means.append(float(sum(found[n, place, ids[0, place]] for n, place in enumerate(places)) / len(places)))
    return means


@torch.no_grad()
def _embedding(model: Any, backend: Tokenizer) -> list[float]:
    prompt, *vectors = (model(_around(backend, text)).last_hidden_state[0].mean(0) for text in (PROMPT, *CANDIDATES))
    return [float(torch.cosine_similarity(prompt, vector, dim=0)) for vector in vectors]


@torch.no_grad()
def _bartscore(model: Any, backend: Tokenizer) -> list[float]:
    labels = _around(backend, PROMPT)
    return [-float(model(_around(backend, text), labels=labels).loss) for text in CANDIDATES]


KINDS: dict[str, Callable[[Path, Case], dict[str, Any]]] = {
    "reward": _reward,
    "pair": _pair,
    "separate": _separate,
    "chat": _chat,
    "language": _language,
    "fuser": _fuser,
    "masked": lambda folder, case: _scorer(folder, case, AutoModelForMaskedLM, _masked),
    "embedding": lambda folder, case: _scorer(folder, case, AutoModel, _embedding),
    "bartscore": lambda folder, case: _scorer(folder, case, AutoModelForSeq2SeqLM, _bartscore),
}

if __name__ == "__main__":
    make(Path(sys.argv[1]))
