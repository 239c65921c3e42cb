"""Processor of GenFuser: from texts to its input, in the layout of the paper (section 4; `llm-blender/gen_fuser_3b`).

    Instruction: {instruction}</s>Input: {input}</s>Candidate 0: <extra_id_0>:{c0}</s> ...
    Summarize candidates into a better one for the given instruction:

It is assembled from token ids, so that user text stays text, and long texts are truncated by a stated rule.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import BatchEncoding

from .conversations import render_prompt
from .fusion_encoding import FusionEncoding, FusionProcessor
from .processing_causal_gen_fuser import CausalGenFuserProcessor, is_processor_of_causal
from .segmentation import trimmed
from .tokenization import pad_right

if TYPE_CHECKING:
    # From a local folder, transformers 4 loads only the files that this one names; these are what its imports import.
    from .chat_templates import PromptEncoder  # noqa: F401
    from .configuration_gen_fuser import GenFuserConfig  # noqa: F401
    from .configurations import MAJOR_VERSION  # noqa: F401
    from .hub_mixins import PortableProcessorMixin  # noqa: F401
    from .record_values import candidate_parts  # noqa: F401
    from .tokenizer_files import load_tokenizer  # noqa: F401

REQUEST = "Summarize candidates into a better one for the given instruction:"
MAX_SENTINELS = 100


class GenFuserProcessor(FusionProcessor):
    """Turns a prompt and its candidates into the input of a `GenFuser`, and its output into text.

    Args:
        tokenizer: A tokenizer of T5, ByT5 or mT5, with its `<extra_id_k>` tokens.
        max_source_length: Maximum tokens of the input; the closing request always stays.
        max_candidate_length: Maximum tokens of a candidate.
        **kwargs: Options of every processor in transformers.
    """

    def __init__(
        self, tokenizer: Any = None, max_source_length: int = 1024, max_candidate_length: int = 128, **kwargs: Any
    ) -> None:
        self._sentinels = sentinels_of(tokenizer)
        super().__init__(tokenizer, max_source_length, max_candidate_length, token_ids=self._sentinels, **kwargs)
        self._fixed_ids: dict[str, list[int]] = {}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a processor, as in transformers: for a causal language model, a `CausalGenFuserProcessor`."""
        if is_processor_of_causal(pretrained_model_name_or_path, **kwargs):
            return CausalGenFuserProcessor.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @property
    def max_candidates(self) -> int:
        """Maximum number of candidates in one input: one for each `<extra_id_k>` of the tokenizer."""
        return len(self._sentinels)

    @property
    def end_id(self) -> int:
        """Id of the token that ends an answer."""
        return self.tokenizer.eos_token_id

    def encode(
        self,
        prompt: Any,
        candidates: Sequence[str],
        instruction: str | None = None,
        *,
        max_source_length: int | None = None,
    ) -> FusionEncoding:
        """Build the input for one prompt.

        If the input is too long, the prompt and every candidate keep a fair share of the room: what a short text does
        not need goes to the long ones. The closing request always stays, and no candidate is dropped.

        Args:
            prompt: A string or chat messages.
            candidates: The texts, best first.
            instruction: What to do with the prompt. Beside a string it is the layout's instruction and the string the
                input; in all other cases the text of the whole conversation is the instruction, with an empty input.
            max_source_length: Maximum tokens of this input; None for that of the processor.

        Returns:
            The ids, how much was cut, and the segments that extractive decoding may write.

        Raises:
            TypeError: If the candidates are one string.
            ValueError: If there are no candidates, more than there are sentinels, or no room for them.
        """
        texts = self._checked(candidates)
        if isinstance(prompt, str) and instruction is not None:
            task, source = instruction, prompt
        else:
            task, source = render_prompt(prompt, instruction), ""
        heads = [self._fixed("Instruction:"), self._fixed("Input:")]
        heads += [[*self._fixed(f"Candidate {k}:"), self._sentinels[k]] for k in range(len(texts))]
        bodies = self._encode_plain([task, source, *(f":{text}" for text in texts)])
        fixed = sum(len(head) + 1 for head in heads) + len(self._fixed(REQUEST)) + 1
        shares = self._shares([len(body) for body in bodies], len(texts), fixed, max_source_length)
        kept = [body[:share] for body, share in zip(bodies, shares, strict=True)]
        cut = [len(body) - share for body, share in zip(bodies, shares, strict=True)]
        eos = [self.tokenizer.eos_token_id]
        parts = [[*head, *body, *eos] for head, body in zip(heads, kept, strict=True)]
        ids = [token for part in parts for token in part] + [*self._fixed(REQUEST), *eos]
        segments = self._all_segments(texts, shares[2:], cut[2:])
        unknown = self._n_unknown(bodies)
        return FusionEncoding(
            ids, cut[0] + cut[1], tuple(cut[2:]), segments, unknown[0] + unknown[1], tuple(unknown[2:])
        )

    def pad(self, inputs: Sequence[Sequence[int]]) -> BatchEncoding:
        """Return tensors `input_ids` and `attention_mask`, both (batch, length)."""
        return pad_right(inputs, self.tokenizer.pad_token_id)

    def new_tokens(self, inputs: Mapping[str, Any], written: Any) -> list[list[int]]:
        """Return the tokens of each answer from what `generate` returned, without the one that starts it."""
        return [row[1:] for row in written.tolist()]

    def decode_text(self, ids: Sequence[int]) -> str:
        """Decode generated ids, without special tokens, sentinels and outer white space."""
        sentinels = set(self._sentinels)
        kept = [token_id for token_id in map(int, ids) if token_id not in sentinels]
        return trimmed(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _fixed(self, text: str) -> list[int]:
        """Tokenize a text of the layout, once."""
        if text not in self._fixed_ids:
            self._fixed_ids[text] = self._encode_plain([text])[0]
        return self._fixed_ids[text]


def sentinels_of(tokenizer: Any) -> list[int]:
    """Return the ids of the sentinel tokens `<extra_id_k>` of T5, which stand in front of the candidates.

    Those of mT5 are ordinary pieces that begin with a space
    (https://github.com/google-research/multilingual-t5/issues/24); if its tokenizer has added others by the plain
    names, the model may have no embeddings for them.
    """
    vocabulary = tokenizer.get_vocab()
    names = [(f"\N{LOWER ONE EIGHTH BLOCK}<extra_id_{k}>", f"<extra_id_{k}>") for k in range(MAX_SENTINELS)]
    found = [next((vocabulary[name] for name in pair if name in vocabulary), None) for pair in names]
    return [token_id for token_id in found if token_id is not None]
