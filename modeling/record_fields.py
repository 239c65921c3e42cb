"""The fields of records: one table of the names that datasets use, and how the fields that are asked become one prompt.

Every reader of records uses it: the package's, and the pipeline that travels with checkpoints.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .conversations import render_prompt
from .record_values import (
    MODEL_KEYS,
    as_list,
    as_turns,
    candidate_parts,
    decoded_list,
    decoded_messages,
    is_given,
    is_parts,
    same,
)

# What the keys of records mean, by role. The first name of a role is that of our own files.
NAMES: dict[str, tuple[str, ...]] = {
    "prompt": (
        "prompt",
        "question",
        "query",
        "input",
        "user",
        "problem",
        "user_prompt",
        "user_message",
        "user_input",
        "user_query",
        "inputs",
    ),
    "instruction": ("instruction", "instructions"),
    "system": ("system", "system_prompt", "system_message", "system_instruction"),
    "messages": ("messages", "conversation", "conversations", "chat", "dialogue", "dialog", "trajectory", "contents"),
    "history": ("history", "context", "chat_history", "conversation_history"),
    "candidates": (
        "candidates",
        "responses",
        "completions",
        "generations",
        "answers",
        "outputs",
        "choices",
        "predictions",
    ),
    "chosen": ("chosen", "chosen_response", "accepted", "accepted_response", "preferred_response"),
    "rejected": ("rejected", "rejected_response", "dispreferred_response"),
    "answer": (
        "response",
        "answer",
        "completion",
        "output",
        "candidate",
        "generation",
        "generated_text",
        "text",
        "model_response",
    ),
    "model": MODEL_KEYS,
    "models": ("models", "generation_models", "model_names", "generators"),
    "score": ("score", "overall_score", "rating", "reward"),
    "scores": ("scores", "ratings", "rewards", "rm_scores"),
    "ranks": ("ranks", "rankings"),
    "winner": (
        "winner",
        "preference",
        "overall_preference",
        "preference_strength",
        "labels",
        "label",
        "better_response_id",
        "safer_response_id",
        "preferred",
        "verdict",
        "better",
        "human_preference",
    ),
    "pairs": ("pairs",),
    "cmp_results": ("cmp_results",),
    "reference": ("reference",),
    "id": ("id",),
    "source": ("source", "subset"),
    "lang": ("lang", "language"),
    "license": ("license",),
}
# The roles whose values are lists, which tables of texts have as JSON or as Python writes them.
LISTS = ("candidates", "messages", "history", "pairs", "models", "scores", "ranks")
# Those of them whose values may be objects too.
MAPPINGS = ("candidates", "scores")
# The roles whose values may be chat messages, which such tables have in the same way.
CONVERSATIONS = ("prompt", "chosen", "rejected", "answer")
# Roles of which two fields that differ are an error; of another role, the first name that has a value is read.
SINGLE = ("prompt", "instruction", "system", "messages", "history", "candidates", "chosen", "rejected")
# The roles of what a model reads before it answers.
ASKED = ("prompt", "messages", "history", "instruction", "system")
# What the answers in numbered columns are called, as in `response_a`, `response1`, `human_ref_B`.
STEMS = (
    "response",
    "answer",
    "output",
    "completion",
    "human_ref",
    "generation",
    "candidate",
    "conversation",
    "reply",
    "summary",
    "text",
)
NUMBERED = re.compile(rf"({'|'.join(STEMS)})(_?)(\d{{1,3}}|[a-hA-H])")
LETTERS = ("abcdefgh", "ABCDEFGH")
# What may stand in numbered columns beside the answers.
MODEL_STEMS = ("model", "generator", "model_name")
SCORE_STEMS = ("score", "rating", "reward")
# What says something about a record, or was made of it, and is no part of what a model reads.
_METADATA_NAMES = """
additional_metadata annotation annotations annotator annotators author batch best categories category category_tag
chosen_model chosen_probs chosen_probs_lose chosen_probs_win cluster comparison content_type conv_metadata
conversation_hash conversation_id correct_answers count created created_at created_time custom_id custom_system_prompt
data_source dataset dataset_name date datetime decoding_method difficulty distilabel_metadata domain domain_name domains
error evaluation_order evol_history failures file file_name filename finish_reason flip_rate flipped fold
full_conversation fused fused_from fusion_error generation_prompt generator_1 generator_2 group hash idx
incorrect_answers index individual_preference info is_code is_english judge judge_hash judge_name kind labelling_model
labelling_prompt language_code length level licence margin mean_score meta metadata model_chosen model_rejected
n_comparisons n_cycles num_correct num_ratings num_rejected num_turns number openai_moderation order original_id
original_index original_prompt original_response pair_id pair_index parsed_outputs post_id price_per_example probability
prompt_hash prompt_id prompt_source qid question_id rank ranking rationales raw_completion raw_generation_responses
raw_labelling_response redacted rejected_model response_metadata response_model returned row row_id row_number sample_id
sampled_best_of_k sampled_conflict_pairs schedule score_ratio seconds_difference seed session_id source_dataset
source_id split status tag tags task_id time time_per_example timestamp tokens topic topics total_completions
toxic_chat_tag truncated tstamp turn turns_count type uid unique_id upvote_ratio url user_id uuid version weight
word_count year
"""
METADATA = frozenset(_METADATA_NAMES.split())
# What may well have a meaning for a reader, and is no answer: it is reported as not read.
_REMARK_NAMES = """
answer_key answerkey aspects attributes best_answer comment comments correct_answer criteria critique documents expected
expected_answer expected_output explanation feedback format functions gold gold_answer golden_answer ground_truth hint
hints ideal ideal_answer image images keywords note notes passage passages persona principle rationale reference_answer
reviewer rubric sections skill solution style subject target targets task task_type template title tools
"""
REMARKS = frozenset(_REMARK_NAMES.split())
# The same, by the form of the key: an index that pandas wrote, counts, scores and properties of single answers.
METADATA_FORMS = re.compile(
    r"|Unnamed: \d+|__index_level_\d+__|level_0|.*(_id|_ids|_at|_hash|_count|_length|_len|_tokens|_date|_time|_url)"
    r"|(score|rating|reward|model|generator|model_name|winner_model|winner|quotes|tokens|labels|c_root_id|c_id|num_tokens"
    r"|title|created_at_utc|upvote_ratio)_([a-zA-Z]|\d{1,3})|winner_tie"
    r"|(is|num|n|has|ppl)_.*|.*(chosen|rejected)[-_](score|rating|avg_rating|model|probs.*|ratings|rank)"
    r"|(score|rating|reward|model)_(chosen|rejected)|original_(chosen|rejected)"
    r"|response_\d_(severity_level|harm_category|sha256)"
    r"|(helpfulness|correctness|coherence|complexity|verbosity|quality|safety|honesty|truthfulness|factuality)(_.*)?"
)


@dataclass(frozen=True)
class Fields:
    """The fields of a record by their roles."""

    record: Mapping[str, Any]  # its keys as the table spells them, lists and messages in texts decoded
    values: dict[str, Any] = field(default_factory=dict)  # by role, the value
    keys: dict[str, str] = field(default_factory=dict)  # by role, the key, or the keys as messages name them
    suffixes: tuple[str, ...] = ()  # of the columns of the answers, in their order
    unread: tuple[str, ...] = ()  # keys without a known meaning, and known ones that another stands for
    stated: frozenset[str] = frozenset()  # the roles whose keys the caller states
    absent: tuple[str, ...] = ()  # keys that the caller states and the record does not have

    def of_each(self, stems: Iterable[str]) -> list[Any] | None:
        """Return the values in columns that are numbered like the answers, such as `model_a` and `model_b`.

        Columns of another series will do: `model_a` and `model_b` beside `response_1` and `response_2`.
        """
        for stem in stems:
            for joint in ("_", ""):
                names = [f"{stem}{joint}{suffix}" for suffix in self.suffixes]
                if names and any(is_given(self.record.get(name)) for name in names):
                    return [self.record.get(name) for name in names]
                for series in _series(len(names)) if self.suffixes else ():
                    names = [f"{stem}{joint}{suffix}" for suffix in series]
                    if all(name in self.record for name in names):
                        return [self.record[name] for name in names]
        return None


def is_known(key: Any) -> bool:
    """Return whether a key has a known meaning in records."""
    return isinstance(key, str) and _is_known(key)


@lru_cache(maxsize=4096)  # the records of a source have the same keys
def _is_known(key: str) -> bool:
    return (
        key in _ROLES
        or key in METADATA
        or key in REMARKS
        or bool(METADATA_FORMS.fullmatch(key) or NUMBERED.fullmatch(key))
    )


def names_a_field(key: Any) -> bool:
    """Return whether a key has a known meaning, also in another spelling."""
    return is_known(spelt(key))


def spelt(key: Any) -> Any:
    """Return a key as the table spells it, such as `system_prompt` for `System prompt` and `systemPrompt`."""
    if not isinstance(key, str) or is_known(key):
        return key
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s-]+", "_", key.strip()).lower()
    known = name in _ROLES or name in METADATA or name in REMARKS or NUMBERED.fullmatch(name)
    return name if known else key


def role_of(key: Any) -> str | None:
    """Return the role of a key; None if it has none."""
    return _ROLES.get(key) if isinstance(key, str) else None


def holds_answers(key: Any) -> bool:
    """Return whether a key is one of those that hold answers."""
    roles = ("candidates", "chosen", "rejected", "answer")
    return role_of(key) in roles or (isinstance(key, str) and bool(NUMBERED.fullmatch(key)))


def read_fields(record: Mapping[str, Any], columns: Mapping[str, Sequence[str]] | None = None) -> Fields:
    """Return the fields of a record by their roles.

    Args:
        record: A decoded record.
        columns: By role, the keys to take in place of those of the table; several keys of "candidates" hold an answer
            each. A key with dots, such as "info.post", may lead into objects. A record that has none of them is read
            by the table.

    Raises:
        ValueError: If two fields of the same role disagree; the message names both.
    """
    values: dict[str, Any] = {}
    keys: dict[str, str] = {}
    record = _prepared(record, {name: role for role, names in (columns or {}).items() for name in names})
    absent = tuple(name for names in (columns or {}).values() for name in names if name not in record)
    stated = {
        role: [name for name in names if name in record]
        for role, names in (columns or {}).items()
        if any(name in record for name in names)
    }
    unread: dict[str, None] = dict.fromkeys(str(key) for key in record if key in REMARKS or not is_known(key))
    suffixes: tuple[str, ...] = ()
    for role, names in stated.items():
        for name in names:
            unread.pop(name, None)
        if role == "candidates" and len(names) > 1:
            suffixes = tuple(names)
            values[role] = [record[name] for name in names]
        else:
            values[role] = record[names[0]]
        keys[role] = names[0]
    taken = {name for names in stated.values() for name in names}
    asked = {"prompt", "messages", "history"}
    for role, known in NAMES.items():
        own = [name for name in known if name in record and name not in taken]
        # Who says where the prompt is says that no other field is.
        if role in stated or (role in asked and asked & stated.keys()):
            unread |= dict.fromkeys(name for name in own if role in SINGLE)
        elif own:
            if role == "candidates" and is_given(record.get("candidates")):  # ours, beside the answers of a data set
                unread |= dict.fromkeys(own[1:])
                own = own[:1]
            name = _one_of(role, own, record)
            values[role], keys[role] = record[name], name
    if "candidates" not in stated:
        suffixes = _take_numbered(record, taken, values, keys, unread)
    if any(is_given(values.get(role)) for role in ("candidates", "conversations", "chosen")):
        single = [name for name in NAMES["answer"] if name in record and name not in taken]
        unread |= dict.fromkeys(name for name in single if name != _reference_key(keys, stated))
    return Fields(record, values, keys, suffixes, tuple(unread), frozenset(stated), absent)


def _prepared(record: Mapping[str, Any], stated: Mapping[str, str]) -> dict[str, Any]:
    """Return a record with its keys as the table spells them, and with lists and messages in place of their texts.

    A key that the caller states by its path is a key of its own.
    """
    found: dict[str, Any] = {}
    paths = {name: _at_path(record, name) for name in stated if name not in record and "." in name}
    for key, value in {**record, **{name: value for name, value in paths.items() if value is not None}}.items():
        name = key if key in stated else spelt(key)
        if name != key and name in record:
            if role_of(name) in SINGLE and is_given(value) and not same(value, record[name]):
                raise ValueError(f'"{key}" and "{name}" both say the {role_of(name)}, and differ; drop one of them')
            name = key
        found[name] = _decoded(value, stated.get(name) or role_of(name), name)
    return found


def _at_path(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _decoded(value: Any, role: str | None, key: str) -> Any:
    if not isinstance(value, str):
        return value
    if role in CONVERSATIONS or role == "messages" or NUMBERED.fullmatch(key):
        value = decoded_messages(value, key)
    if role in MAPPINGS:
        return decoded_list(value, (list, dict))
    return decoded_list(value) if role in LISTS else value


def _one_of(role: str, names: Sequence[str], record: Mapping[str, Any]) -> str:
    """Return which of several keys of a role to read: they must not disagree."""
    given = [name for name in names if is_given(record[name])]
    if role in SINGLE:
        told = [name for name in given if not (isinstance(record[name], str) and not record[name].strip())]
        given = told or given
        for other in given[1:]:
            if not same(record[given[0]], record[other]):
                raise ValueError(
                    f'"{given[0]}" and "{other}" both say the {role}, and differ; rename or drop one of them, or '
                    f"choose with --columns {role}={given[0]}"
                )
    return given[0] if given else names[0]


def _take_numbered(
    record: Mapping[str, Any],
    taken: Iterable[str],
    values: dict[str, Any],
    keys: dict[str, str],
    unread: dict[str, None],
) -> tuple[str, ...]:
    """Read the answers in numbered columns as candidates, or as conversations; return the suffixes of the columns."""
    found: dict[tuple[str, str], list[str]] = {}
    for key in record:
        form = NUMBERED.fullmatch(key) if isinstance(key, str) and key not in taken else None
        if form:
            found.setdefault((form[1], form[2]), []).append(form[3])
    families = {
        kind: ordered for kind, ends in found.items() if len(ends) > 1 and (ordered := _in_series(ends)) is not None
    }
    alone = [("".join(kind), ends) for kind, ends in found.items() if kind not in families]
    unread |= dict.fromkeys(f"{kind}{end}" for kind, ends in alone for end in ends)
    if "candidates" in values and is_given(record.get("candidates")):
        unread |= dict.fromkeys(f"{stem}{joint}{end}" for (stem, joint), ends in families.items() for end in ends)
        return ()
    if not families:
        return ()
    (kind, suffixes), *others = families.items()
    names = ["".join((*kind, suffix)) for suffix in suffixes]
    listed = '", "'.join(names)
    if others:
        other = "".join((*others[0][0], others[0][1][0]))
        raise ValueError(
            f'the answers stand in "{names[0]}", and in "{other}"; drop one of them, or choose with --columns '
            f"candidates={','.join(names)}"
        )
    if "candidates" in values and is_given(values["candidates"]):
        if not same(as_list(values["candidates"]), [record[name] for name in names]):
            raise ValueError(
                f'the answers stand in "{keys["candidates"]}", and in "{listed}"; drop one of them, or choose with '
                f"--columns candidates={keys['candidates']}"
            )
        return suffixes
    role = "conversations" if kind[0] == "conversation" else "candidates"
    values[role], keys[role] = [record[name] for name in names], listed
    return suffixes


def _in_series(ends: Sequence[str]) -> tuple[str, ...] | None:
    """Return the suffixes of numbered columns in their order; None if some between them are missing."""
    ordered = sorted(ends, key=lambda end: (int(end) if end.isdigit() else -1, end))
    counted = [str(int(end)) if end.isdigit() else end for end in ordered]
    return tuple(ordered) if tuple(counted) in _series(len(ends)) else None


def _series(n: int) -> list[tuple[str, ...]]:
    """Return the suffixes that n numbered columns may have."""
    numbers = [tuple(map(str, range(start, start + n))) for start in (0, 1)]
    return [*numbers, *(tuple(letters[:n]) for letters in LETTERS)]


def _reference_key(keys: Mapping[str, str], stated: Collection[str]) -> str:
    """Return the key of a good answer: as the caller states it; that of MixInstruct is called output."""
    if "reference" in stated:
        return keys["reference"]
    return "output" if keys.get("prompt") == "input" and "instruction" in keys else "reference"


def reference_of(fields: Fields) -> Any:
    """Return the good answer of a record, or None."""
    return fields.record.get(_reference_key(fields.keys, fields.stated))


def missing(role: str, fields: Fields) -> str:
    """Return the message that a role was not found: the names that are read, the keys that are there, what to do."""
    said = "no candidates were found" if role == "candidates" else f"no {role} was found"
    names = ", ".join(f'"{name}"' for name in NAMES[role])
    there = ", ".join(f'"{key}"' for key in fields.record) or "no keys"
    null = [name for name in NAMES[role] if name in fields.record]
    if null and not is_given(fields.record[null[0]]):
        return f'{said}: "{null[0]}" is null or empty; give it a value'
    absent = "".join(f', and no "{name}", which --columns states' for name in fields.absent)
    several = ", or candidates=KEY,KEY where each holds one answer" if role == "candidates" else ""
    return (
        f"{said}: one of the keys {names} is needed; it has {there}{absent}; rename the key that holds it, or say "
        f"which one it is with --columns {role}=KEY{several}"
    )


def stated_prompt(fields: Fields) -> tuple[Any, Any]:
    """Return the prompt that a record states, and the instruction that stands beside it; None for what it lacks.

    Messages that end with the text of the prompt hold it. Earlier turns stand before it. An instruction after earlier
    turns is what the user says next.

    Returns:
        A text or chat messages, and a text.

    Raises:
        TypeError: If earlier turns are no turns.
        ValueError: If the prompt and the messages disagree, or it is not certain that a field belongs to the prompt.
    """
    keys = fields.keys
    prompt, messages, history = (_conversation(fields.values.get(role)) for role in ("prompt", "messages", "history"))
    instruction = fields.values.get("instruction")
    if isinstance(prompt, Mapping):
        key, inner = keys["prompt"], ", ".join(f'"{name}"' for name in prompt)
        prompt = prompt.get("full_text", prompt.get("text"))  # WebGPT's question
        if prompt is None:
            raise TypeError(
                f'"{key}" is an object with the keys {inner or "none"}; say which of them is the prompt, with '
                f"--columns prompt={key}.KEY"
            )
    if isinstance(history, str) and history.strip():
        return _with_text_before(history, fields), None
    if is_given(messages) and is_given(prompt):
        messages = _holding(messages, prompt, fields)
    if is_given(history) and not isinstance(history, str) and (turns := _earlier(history, keys["history"])):
        if is_given(messages):
            if not same((as_list(messages) or [])[: len(turns)], turns):
                raise ValueError(
                    f'"{keys["messages"]}" and "{keys["history"]}" are both conversations; rename or drop one of them'
                )
            return messages, instruction
        return _after(turns, prompt, instruction)
    return next((found for found in (messages, prompt) if is_given(found)), None), instruction


def with_system(prompt: Any, instruction: Any, fields: Fields) -> tuple[Any, str | None]:
    r"""Return the prompt with the system message that stands beside it, and the instruction that is left to apply.

    A system message becomes the first message of the conversation. One that the conversation has already must be the
    same. An instruction stands above the text of a prompt, as it does without a system message; alone it is the prompt.

    Raises:
        TypeError: If the system message or the instruction is no text.
        ValueError: If there are two system messages that differ, or no prompt at all.
    """
    system = fields.values.get("system")
    if isinstance(system, Mapping):  # Gemini's
        system = as_turns({"role": "system", **system}).get("content")
    if is_given(system) and not isinstance(system, str) and not is_parts(system):
        raise TypeError(f"the system message must be a string, or a list of parts, not {type(system).__name__}")
    if is_given(instruction) and not isinstance(instruction, str):
        raise TypeError(f"the instruction must be a string, not {type(instruction).__name__}")
    instruction = instruction if is_given(instruction) else None
    if prompt is None:
        if instruction is None:
            raise ValueError(missing("prompt", fields))
        prompt, instruction = instruction, None
    if not is_given(system) or not (system.strip() if isinstance(system, str) else system):
        return prompt, instruction
    first = {"role": "system", "content": system}
    if isinstance(prompt, str):
        return [first, _user(instruction, prompt)], None
    turns = as_list(prompt)
    if not turns or not isinstance(turns[0], Mapping):
        return prompt, instruction  # what is wrong with it is said where conversations are checked
    if turns[0].get("role") not in ("system", "developer"):
        return [first, *turns], instruction
    if not same(turns[0].get("content"), system):
        raise ValueError(
            f'"{fields.keys["system"]}" and the system message of the conversation differ; drop one of them'
        )
    return turns, instruction


def prompt_of(fields: Fields) -> tuple[Any, str | None]:
    """Return the prompt of a record, a text or chat messages, and its instruction; errors as of the functions above."""
    return with_system(*stated_prompt(fields), fields)


def candidates_of(fields: Fields) -> list[Any] | None:
    """Return the candidates that a record lists; None if it lists none.

    Those in numbered columns, or with their models in a list beside them, become mappings with "text" and "model".

    Raises:
        TypeError: If the candidates are no list.
        ValueError: If there are more or fewer models than candidates.
    """
    value = fields.values.get("candidates")
    if not is_given(value):
        return None
    if isinstance(value, Mapping) and len(value) > 1 and all(isinstance(text, str) for text in value.values()):
        return [{"text": text, "model": str(model)} for model, text in value.items()]
    found = as_list(value)
    if found is None:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            key, found_there = fields.keys["candidates"], type(value).__name__
            remedy = (
                f"say which of its keys holds them, with --columns candidates={key}.KEY"
                if isinstance(value, Mapping)
                else "if several keys hold one answer each, name them all: --columns candidates=KEY,KEY"
            )
            raise TypeError(
                f'candidates must be a list of strings for this prompt, not {found_there} ("{key}"); {remedy}'
            )
        found = list(value)
    found = [as_turns(one) if not isinstance(one, Mapping) or "from" in one else one for one in found]
    empty = next((suffix for suffix, text in zip(fields.suffixes, found, strict=False) if not is_given(text)), None)
    if empty is not None and "candidates" not in fields.stated:
        raise ValueError(
            f'the answer "{empty}" of "{fields.keys["candidates"]}" is null or empty; give it a text, leave out the '
            "record, or name the columns with --columns candidates=..., then empty ones are left out"
        )
    if "candidates" in fields.stated and fields.suffixes:
        named = zip(fields.suffixes, found, strict=True)
        return [{"text": text, "model": name} for name, text in named if is_given(text) and text != ""]
    models = fields.of_each(MODEL_STEMS) or as_list(fields.values.get("models"))
    if not models or any(isinstance(candidate, Mapping) for candidate in found):
        return found
    if len(models) != len(found):
        raise ValueError(f"there are {len(found)} candidates and {len(models)} names of models; give one for each")
    return [
        {"text": text, "model": str(model)} if is_given(model) and isinstance(text, str) else text
        for text, model in zip(found, models, strict=True)
    ]


def _conversation(value: Any) -> Any:
    value = as_turns(value)
    return [value] if isinstance(value, Mapping) and "role" in value else value


def _with_text_before(history: str, fields: Fields) -> str:
    """Return a text called history as the prompt that it is if nothing else is one (SHP)."""
    key = fields.keys["history"]
    others = [fields.keys[role] for role in ("prompt", "messages", "instruction") if is_given(fields.values.get(role))]
    if (key == "history" and not others) or same(fields.values.get("prompt"), history):
        return history
    beside = f' beside "{others[0]}"' if others else ""
    below = f", or that it stands below the question with instruction={others[0]},prompt={key}" if others else ""
    raise ValueError(
        f'"{key}" holds a text{beside}, and it is not certain that it belongs to the prompt; put it into the prompt, '
        f"or drop it, or say which key is the prompt with --columns prompt={others[0] if others else key}{below}"
    )


def _after(turns: list[Any], prompt: Any, instruction: Any) -> tuple[Any, Any]:
    """Return earlier turns with what is asked after them, which they may hold already, and what is left to apply."""
    asked = prompt if is_given(prompt) else instruction
    held = turns[-1].get("role") == "user" and turns[-1].get("content") == asked
    if not asked or held:
        return turns, (instruction if is_given(prompt) or not held else None)
    if not isinstance(asked, str):
        return [*turns, *(as_list(asked) or [asked])], instruction
    above = instruction if is_given(prompt) and isinstance(instruction, str) else None
    return [*turns, _user(above, asked)], None


def _user(instruction: str | None, prompt: str) -> dict[str, str]:
    return {"role": "user", "content": "\n".join(part for part in (instruction, prompt) if part)}


def _holding(messages: Any, prompt: Any, fields: Fields) -> Any:
    """Return the messages that hold a prompt; what comes after it must be an answer of the record, and is left out."""
    turns = as_list(messages)
    if turns is None or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        return messages  # what is wrong with it is said where conversations are checked
    last = max((n for n, turn in enumerate(turns) if turn.get("role") == "user"), default=-1)
    for held in (turns, turns[: last + 1]):
        if len(held) < len(turns) and not _is_answer(turns[last + 1 :], fields):
            continue
        if held and any(same(_quietly(form, held), prompt) for form in (render_prompt, _last_content, list)):
            return held
    one, other = fields.keys["messages"], fields.keys["prompt"]
    raise ValueError(
        f'"{one}" and "{other}" are both the prompt, and differ; rename or drop one of them, or choose with --columns '
        f"prompt={other}"
    )


def _is_answer(turns: Sequence[Mapping[str, Any]], fields: Fields) -> bool:
    """Return whether this is the one message of an answer that the record has elsewhere too."""
    answers = [as_turns(fields.values.get(role)) for role in ("chosen", "rejected", "answer")]
    answers += as_list(fields.values.get("candidates")) or []
    ends = [(as_list(answer) or [answer])[-1] for answer in answers]
    texts = [candidate_parts(end)[0] if isinstance(end, Mapping) else end for end in ends]
    return len(turns) == 1 and any(same(turns[0].get("content"), text) for text in texts if is_given(text))


def _last_content(turns: Sequence[Mapping[str, Any]]) -> Any:
    return turns[-1].get("content") if turns[-1].get("role") == "user" else None


def _quietly(form: Callable[[Any], Any], turns: Any) -> Any:
    try:
        return form(turns)
    except (TypeError, ValueError):
        return None


def _earlier(history: Any, key: str) -> list[Any]:
    """Return earlier turns: chat messages, or pairs of what a user and an assistant said (LLaMA-Factory)."""
    turns = as_list(history)
    if turns is not None and all(isinstance(turn, Mapping) for turn in turns):
        return turns
    pairs = [as_list(turn) for turn in turns or ()]
    if turns is None or any(pair is None or len(pair) != 2 for pair in pairs):
        raise TypeError(
            f'"{key}" must be chat messages, or a list of pairs [what the user said, the answer]; rename or drop it if '
            "it is something else"
        )
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair or (), strict=True)
    ]


_ROLES = {name: role for role, names in NAMES.items() for name in names}
