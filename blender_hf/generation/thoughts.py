"""The answer in what a reasoning model writes: its thoughts, between marks that differ by the family, are none."""

import re
from collections.abc import Iterator

# How a thought begins and ends, by the family that writes so; the first is that of most.
MARKS = (
    ("<think>", "</think>"),  # DeepSeek, Qwen, GLM, Phi, ...
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # EXAONE
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<longcat_think>", "</longcat_think>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<unused94>thought", "<unused95>"),  # MedGemma
)
# What some of them put around the answer that follows.
ANSWERS = (
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)
# The channels of gpt-oss: (name, text). The answer is in "final".
CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(.*?)"
    r"(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
# Where they begin, and where one follows another: the first mark may stand in the prompt.
FIRST_CHANNEL = re.compile(r"\s*(?:<\|start\|>\s*assistant\s*)?<\|channel\|>")
NEXT_CHANNEL = re.compile(r"<\|end\|>\s*<\|start\|>\s*assistant\s*<\|channel\|>")
# Tokenizers take some marks for special tokens, which are left out of a decoded text. If one of the first is written,
# it and the others are kept.
MARK_TOKENS = frozenset([*(mark for pair in MARKS for mark in pair), "<unused94>", "<|channel>", "<|channel|>"])
OTHER_TOKENS = frozenset(
    [*(mark for pair in ANSWERS for mark in pair)]
    + [f"<|{name}|>" for name in ("message", "start", "end", "return", "call", "constrain")]
)
# Code, in which a mark is only mentioned; a fence may lack its end.
CODE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`", re.DOTALL)


def answer_in(text: str) -> str:
    """Return the answer in a generated text, without outer white space and thoughts.

    A thought stands first, between two of `MARKS`; some chat templates write its first mark, so that only the other one
    is in the text. A text that ends within a thought has no answer. A mark elsewhere, as in an answer about such marks,
    is left as it is.
    """
    if FIRST_CHANNEL.match(text) or any(_outside_code(NEXT_CHANNEL, text)):
        return "\n".join(said.strip() for name, said in CHANNEL.findall(text) if name == "final").strip()
    rest = text.strip()
    is_first = True
    while (mark := opening_mark(rest)) is not None:
        begin, end = mark
        _, closed, after = rest[len(begin) :].partition(end)
        if not closed:
            return ""
        rest, is_first = after.strip(), False
    if is_first:
        rest = _behind_a_lone_end(rest)
    return _unwrapped(rest)


def opening_mark(text: str) -> tuple[str, str] | None:
    """Return the marks of the thought that a text begins with, if it does."""
    return next((pair for pair in MARKS if text.startswith(pair[0])), None)


def open_mark_at_end(prompt: str) -> str:
    """Return the mark with which a prompt ends, so that an answer begins within a thought; an empty text if none."""
    return next((begin for begin, _ in MARKS if prompt.rstrip().endswith(begin)), "")


def _behind_a_lone_end(text: str) -> str:
    """Return what follows the end of a thought whose beginning is not in the text; the text itself without one."""
    ends = [
        found
        for begin, end in MARKS
        for found in list(_outside_code(re.compile(re.escape(end)), text))[:1]
        if begin not in text[: found.start()] and not _is_mentioned(text, found)
    ]
    first = min(ends, key=lambda found: found.start(), default=None)
    return text if first is None else text[first.end() :].strip()


def _is_mentioned(text: str, mark: re.Match[str]) -> bool:
    """Return whether a mark is a word of a sentence, or quoted: a thought ends with a line or a sentence."""
    before, after = text[: mark.start()][-1:], text[mark.end() :][:1]
    is_quoted = before in tuple("\"'(\u201c\u2018\u00ab")
    return is_quoted or (before == " " and (after == " " or after in tuple(".,;:!?)")))


def _outside_code(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    code = [found.span() for found in CODE.finditer(text)]
    for found in pattern.finditer(text):
        if not any(start <= found.start() < end for start, end in code):
            yield found


def _unwrapped(text: str) -> str:
    for begin, end in ANSWERS:
        if text.startswith(begin):
            return text.removeprefix(begin).removesuffix(end).strip()
    return text
