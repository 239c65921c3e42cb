"""Folders that hold something else than a model that loads as it is: the message has the step that works."""

import json
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig

from blender_hf import Blender, CheckpointError, LocalLLM, generate
from blender_hf.loading.checkpoints import locate
from tests.conftest import SMALL, encoder_tokenizer

T5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
MT5 = {"model_type": "mt5", "architectures": ["MT5ForConditionalGeneration"]}
BERT = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "score"}}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "task_type": "SEQ_CLS"}
ODD = {"model_type": "odd", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
TOKENIZER = (Path(locate("gen-fuser-mini")) / "tokenizer.json").read_bytes()
FAST = {"tokenizer.json": TOKENIZER, "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}}
ROLES = {
    "ranker": lambda folder: Blender.from_pretrained(folder, None, device="cpu"),
    "fuser": lambda folder: Blender.from_pretrained(fuser=folder, device="cpu"),
    "language model": lambda folder: generate("Hi", [LocalLLM(str(folder), device="cpu")]),
}
EVERYWHERE = tuple(ROLES)
CASES = [
    (
        "adapter",
        EVERYWHERE,
        {"adapter_config.json": ADAPTER},
        "a LoRA adapter of org/base, not a whole model: merge",
    ),
    (
        "GGUF",
        EVERYWHERE,
        {"m-q4.gguf": b"GGUF"},
        r"named \S+#m-q4\.gguf, or served with `llama-server -m \S+m-q4\.gguf`",
    ),
    ("data set", EVERYWHERE, {"data/train.parquet": b"PAR1"}, "holds a data set, not a model"),
    (
        *("embedding model", EVERYWHERE),
        {
            **{"modules.json": b"[]", "0_Transformer/config.json": {"model_type": "bert"}, "1_Pooling/config.json": {}},
            "tokenizer_config.json": {},
        },
        r"neither scores answers nor writes texts; .*pair_ranker with \S+0_Transformer ",
    ),
    ("static embeddings", ("ranker",), {"modules.json": b"[]", "0_Static/tokenizer.json": b"{}"}, "neither scores"),
    (
        *("cross-encoder", ("ranker",)),
        {"modules.json": b"[]", "0_Transformer/config.json": BERT},
        r"whose files are in 0_Transformer: give \S+0_Transformer ",
    ),
    (
        *("damaged SentencePiece model", ("fuser",)),
        {"config.json": T5, "spiece.model": b"x", "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer"}},
        r"spiece\.model is damaged, or no SentencePiece model",
    ),
    ("ONNX", ("ranker",), {"config.json": BERT, "onnx/model.onnx": b"", **FAST}, r"only ONNX files: .*--backend onnx"),
    (
        *("quantised", ("language model",)),
        {"config.json": {**LLAMA, "quantization_config": {"quant_method": "hqq"}}, "model.safetensors": b"", **FAST},
        "quantised by hqq, which needs: pip install hqq",
    ),
    (
        *("pickle", ("ranker",)),
        {"config.json": BERT, "pytorch_model.bin": pickle.dumps({"a": Path()}), **FAST},
        r"its weights are a pickle .* model\.save_pretrained",
    ),
    ("code", ("language model",), {"config.json": ODD, "code.py": b"x = 1", **FAST}, "trust_remote_code=True"),
]


def folder_of(files: dict[str, Any], folder: Path) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


@pytest.mark.parametrize(
    ("role", "files", "message"),
    [(role, files, message) for _, roles, files, message in CASES for role in roles],
    ids=[f"{name} as a {role}" for name, roles, *_ in CASES for role in roles],
)
def test_what_the_folder_holds_is_named(role: str, files: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"can't load the {role} .*{message}"):
        ROLES[role](folder_of(files, tmp_path))


WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        missing = name.split(".")[0] in ("sentencepiece", "tiktoken") or name.startswith("google.protobuf")
        return None if missing else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
from blender_hf import Blender, LocalLLM, generate
for number, load in enumerate((
    lambda: Blender.from_pretrained(fuser=sys.argv[1], device="cpu"),
    lambda: Blender.from_pretrained(fuser=sys.argv[4], device="cpu"),
    lambda: Blender.from_pretrained(sys.argv[2], None, device="cpu"),
    lambda: generate("Hi", [LocalLLM(sys.argv[3], device="cpu")]),
)):
    try:
        load()
    except OSError as error:
        print(error)
"""


@pytest.mark.slow
def test_without_sentencepiece_the_extra_is_named(tmp_path: Path) -> None:
    """It said that tiktoken is required, which does not help."""
    files = [
        {"config.json": T5, "spiece.model": b"x", "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer"}},
        {
            **{"config.json": {**BERT, "model_type": "deberta-v2"}, "spm.model": b"x"},
            "tokenizer_config.json": {"tokenizer_class": "DebertaV2Tokenizer"},
        },
        {"config.json": LLAMA, "tokenizer.model": b"x", "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}},
        {"config.json": MT5, "spiece.model": b"x", "tokenizer_config.json": {"tokenizer_class": "MT5Tokenizer"}},
    ]
    folders = [str(folder_of(one, tmp_path / str(number))) for number, one in enumerate(files)]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *folders], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stdout
    for line in lines:
        assert "which needs two packages: pip install 'blender-hf[sentencepiece]'" in line
        assert "pip install tiktoken" not in line


@pytest.mark.slow
@pytest.mark.parametrize("task", ["SEQ_CLS", "CAUSAL_LM"])
def test_the_command_that_merges_an_adapter_works(task: str, chat_model: Path, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    if task == "SEQ_CLS":
        tokenizer = encoder_tokenizer()
        config = BertConfig(**SMALL, vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(base)
        tokenizer.save_pretrained(base)
        model, load, targets = AutoModelForSequenceClassification.from_pretrained(base), ROLES["ranker"], ["query"]
    else:
        base = chat_model
        model, load, targets = AutoModelForCausalLM.from_pretrained(base), ROLES["language model"], "all-linear"
    get_peft_model(model, LoraConfig(task_type=task, r=2, target_modules=targets)).save_pretrained(adapter)
    with pytest.raises(CheckpointError, match="LoRA adapter") as caught:
        load(adapter)
    found = re.search(r"`(python -c \".*?\")`, then give (\S+)", str(caught.value))
    assert found is not None
    _, *arguments = shlex.split(found[1])
    subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, capture_output=True)
    load(tmp_path / found[2])
