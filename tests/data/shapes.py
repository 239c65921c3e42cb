"""Records in the shapes of public data sets, with texts of our own, and what every reader makes of each."""

import json
from dataclasses import dataclass
from typing import Any

QUESTION, GOOD, BAD = "What is the capital of Peru?", "The capital of Peru is Lima.", "Bananas are yellow."
GOOD_STYLES = (GOOD, "Lima, the capital.", "**Lima**")
BAD_STYLES = (BAD, "Bananas, which are yellow.", "**Bananas**")


def parts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "image": None, "mimeType": None}]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


@dataclass(frozen=True)
class Shape:
    """A record, and what is read of it."""

    record: dict[str, Any]
    source: str = QUESTION  # the text that the ranker reads
    candidates: frozenset[str] = frozenset((GOOD, BAD))
    #: (better, worse, soft label); a tie has None in place of the soft label.
    pairs: frozenset[tuple[str, str, float | None]] = frozenset()
    scores: dict[str, dict[str, float]] | None = None
    models: dict[str, str] | None = None


BETTER = frozenset({(GOOD, BAD, 1.0)})
SHAPES: dict[str, Shape] = {
    "MT-bench by people": Shape(
        {
            "question_id": 81,
            "model_a": "alpha",
            "model_b": "beta",
            "winner": "model_b",
            "judge": "expert_1",
            "conversation_a": [user(QUESTION), assistant(BAD), user("Sure?"), assistant("Yes.")],
            "conversation_b": [user(QUESTION), assistant(GOOD), user("Sure?"), assistant("No.")],
            "turn": 1,
        },
        pairs=BETTER,
        models={BAD: "alpha", GOOD: "beta"},
    ),
    "MT-bench by people, second turn": Shape(
        {
            "winner": "model_a",
            "model_a": "alpha",
            "model_b": "beta",
            "conversation_a": [user(QUESTION), assistant(GOOD), user("Sure?"), assistant("Yes.")],
            "conversation_b": [user(QUESTION), assistant(GOOD), user("Sure?"), assistant("No.")],
            "turn": 2,
        },
        source=f"USER: {QUESTION}\nASSISTANT: {GOOD}\nUSER: Sure?",
        candidates=frozenset(("Yes.", "No.")),
        pairs=frozenset({("Yes.", "No.", 1.0)}),
        models={"Yes.": "alpha", "No.": "beta"},
    ),
    "Chatbot Arena": Shape(
        {
            "question_id": "x",
            "model_a": "alpha",
            "model_b": "beta",
            "winner": "tie (bothbad)",
            "conversation_a": [user(QUESTION), assistant(GOOD)],
            "conversation_b": [user(QUESTION), assistant(BAD)],
            "turn": 1,
            "language": "English",
            "tstamp": 1.5,
            "openai_moderation": {},
            "toxic_chat_tag": {},
        },
        pairs=frozenset({(GOOD, BAD, None)}),
        models={GOOD: "alpha", BAD: "beta"},
    ),
    "Chatbot Arena, competition": Shape(
        {
            "id": "1",
            "model_a": "alpha",
            "model_b": "beta",
            "prompt": f'["Hi", "{QUESTION}"]',
            "response_a": f'["Hi.", "{BAD}"]',
            "response_b": f'["Hi.", "{GOOD}"]',
            "winner_model_a": "0",
            "winner_model_b": "1",
            "winner_tie": "0",
        },
        source=f"USER: Hi\nASSISTANT: Hi.\nUSER: {QUESTION}",
        pairs=BETTER,
        models={GOOD: "beta", BAD: "alpha"},
    ),
    "alpaca_eval annotations": Shape(
        {
            "instruction": QUESTION,
            "output_1": BAD,
            "generator_1": "alpha",
            "dataset": "helpful_base",
            "output_2": GOOD,
            "generator_2": "beta",
            "annotator": "judge",
            "preference": 1.75,
            "raw_completion": "...",
        },
        pairs=frozenset({(GOOD, BAD, 0.75)}),
        models={GOOD: "beta", BAD: "alpha"},
    ),
    "UltraFeedback": Shape(
        {
            "source": "evol_instruct",
            "instruction": QUESTION,
            "models": ["alpha", "beta"],
            "completions": [
                {
                    "model": "alpha",
                    "response": GOOD,
                    "overall_score": 8.0,
                    "fine-grained_score": 4.5,
                    "annotations": {},
                },
                {"model": "beta", "response": BAD, "overall_score": 2.0, "fine-grained_score": 1.5, "critique": "c"},
            ],
            "correct_answers": ["None"],
            "incorrect_answers": ["None"],
        },
        scores={"score": {GOOD: 8.0, BAD: 2.0}, "fine-grained_score": {GOOD: 4.5, BAD: 1.5}},
        models={GOOD: "alpha", BAD: "beta"},
    ),
    "UltraFeedback, binarized": Shape(
        {
            "prompt": QUESTION,
            "prompt_id": "x",
            "chosen": [user(QUESTION), assistant(GOOD)],
            "rejected": [user(QUESTION), assistant(BAD)],
            "messages": [user(QUESTION), assistant(GOOD)],
            "score_chosen": 9.0,
            "score_rejected": 2.0,
        },
        pairs=BETTER,
        scores={"score": {GOOD: 9.0, BAD: 2.0}},
    ),
    "HelpSteer2 preferences": Shape(
        {"split": "train", "prompt": QUESTION, "response_1": BAD, "response_2": GOOD, "preference_strength": 3},
        pairs=BETTER,
    ),
    "HelpSteer3": Shape(
        {
            "domain": "general",
            "language": "english",
            "context": [user("Hi"), assistant("Hi."), user(QUESTION)],
            "response1": GOOD,
            "response2": BAD,
            "overall_preference": -2,
            "individual_preference": [],
        },
        source=f"USER: Hi\nASSISTANT: Hi.\nUSER: {QUESTION}",
        pairs=BETTER,
    ),
    "Nectar": Shape(
        {
            "prompt": f"\n\nHuman: {QUESTION}\n\nAssistant: ",
            "answers": [
                {"answer": BAD, "model": "alpha", "rank": 2.0},
                {"answer": GOOD, "model": "beta", "rank": 1.0},
            ],
            "num_responses": 2,
        },
        source=f"\n\nHuman: {QUESTION}\n\nAssistant: ",
        pairs=BETTER,
        models={GOOD: "beta", BAD: "alpha"},
    ),
    "SHP": Shape(
        {
            "post_id": "x",
            "domain": "askbaking",
            "history": QUESTION,
            "human_ref_A": BAD,
            "human_ref_B": GOOD,
            "score_A": 2,
            "score_B": 9,
            "labels": 0,
            "c_root_id_A": "a",
            "c_root_id_B": "b",
            "created_at_utc_A": 1,
            "created_at_utc_B": 2,
            "upvote_ratio": 0.9,
            "seconds_difference": 1.0,
            "score_ratio": 4.5,
        },
        pairs=BETTER,
        scores={"score": {GOOD: 9.0, BAD: 2.0}},
    ),
    "WebGPT": Shape(
        {
            "question": {"dataset": "eli5", "id": "x", "full_text": QUESTION},
            "answer_0": BAD,
            "score_0": -0.5,
            "quotes_0": {},
            "tokens_0": {},
            "answer_1": GOOD,
            "score_1": 0.5,
            "quotes_1": {},
            "tokens_1": {},
        },
        pairs=BETTER,
        scores={"score": {GOOD: 0.5, BAD: -0.5}},
    ),
    "PKU-SafeRLHF": Shape(
        {
            "prompt": QUESTION,
            "response_0": BAD,
            "response_1": GOOD,
            "is_response_0_safe": True,
            "is_response_1_safe": True,
            "better_response_id": 1,
            "safer_response_id": 1,
        },
        pairs=BETTER,
    ),
    "JudgeBench": Shape(
        {
            "pair_id": "x",
            "original_id": "y",
            "source": "mmlu-pro",
            "question": QUESTION,
            "response_model": "alpha",
            "response_A": BAD,
            "response_B": GOOD,
            "label": "B>A",
        },
        pairs=BETTER,
    ),
    "RewardBench 2": Shape(
        {
            "id": "1",
            "prompt": QUESTION,
            "chosen": [GOOD],
            "rejected": [BAD],
            "num_correct": 1,
            "num_incorrect": 1,
            "total_completions": 2,
            "models": ["alpha", "beta"],
            "subset": "Factuality",
            "additional_metadata": {"category": None},
        },
        pairs=BETTER,
    ),
    "RM-Bench": Shape(
        {
            "id": "chat_1",
            "prompt": QUESTION,
            "chosen": list(GOOD_STYLES),
            "rejected": list(BAD_STYLES),
            "domain": "chat",
        },
        candidates=frozenset((*GOOD_STYLES, *BAD_STYLES)),
        pairs=frozenset((good, bad, 1.0) for good in GOOD_STYLES for bad in BAD_STYLES),
    ),
    "Preference Proxy Evaluations, correctness": Shape(
        {
            "question_id": "x",
            "prompt": QUESTION,
            "response_1": BAD,
            "response_2": GOOD,
            "response_3": "Lima?",
            "scores": [False, True, True],
            "parsed_outputs": ["", "Lima", "Lima"],
            "mean_score": 0.67,
            "sampled_conflict_pairs": [[0, 1]],
            "sampled_best_of_k": [[0, 1, 2]],
        },
        candidates=frozenset((GOOD, BAD, "Lima?")),
        scores={"score": {GOOD: 1.0, BAD: 0.0, "Lima?": 1.0}},
    ),
    "LMArena": Shape(
        {
            "id": "x",
            "model_a": "alpha",
            "model_b": "beta",
            "winner": "both_bad",
            "evaluation_session_id": "y",
            "evaluation_order": 1,
            "conversation_a": [user(parts(QUESTION)), assistant(parts(BAD))],
            "conversation_b": [user(parts(QUESTION)), assistant(parts(GOOD))],
            "full_conversation": [{"user_side": user(parts(QUESTION))}],
            "conv_metadata": {"sum_assistant_a_tokens": 1},
            "category_tag": {"math_v0.1": {"math": False}},
            "language": "en",
            "is_code": False,
            "timestamp": "2025-04-17",
        },
        pairs=frozenset({(BAD, GOOD, None)}),
        models={BAD: "alpha", GOOD: "beta"},
    ),
    "MT-bench by GPT-4": Shape(
        {
            "question_id": 81,
            "model_a": "alpha",
            "model_b": "beta",
            "winner": "tie (inconsistent)",
            "judge": ["gpt-4", "pair-v2"],
            "conversation_a": [user(QUESTION), assistant(GOOD)],
            "conversation_b": [user(QUESTION), assistant(BAD)],
            "turn": 1,
        },
        pairs=frozenset({(GOOD, BAD, None)}),
        models={GOOD: "alpha", BAD: "beta"},
    ),
    "HH-RLHF": Shape(
        {
            "chosen": f"\n\nHuman: {QUESTION}\n\nAssistant: {GOOD}",
            "rejected": f"\n\nHuman: {QUESTION}\n\nAssistant: {BAD}",
        },
        pairs=BETTER,
    ),
    "HH-RLHF without the first line breaks": Shape(
        {"chosen": f"Human: {QUESTION}\n\nAssistant: {GOOD}", "rejected": f"Human: {QUESTION}\n\nAssistant: {BAD}"},
        pairs=BETTER,
    ),
    "Skywork, Tulu": Shape(
        {
            "source": "magpie",
            "chosen": [user(QUESTION), assistant(GOOD)],
            "rejected": [user(QUESTION), assistant(BAD)],
            "chosen_model": "alpha",
            "rejected_model": "beta",
        },
        pairs=BETTER,
        models={GOOD: "alpha", BAD: "beta"},
    ),
    "distilabel": Shape(
        {
            "instruction": QUESTION,
            "generations": [BAD, GOOD],
            "generation_models": ["alpha", "beta"],
            "ratings": [1, 5],
            "rationales": ["", ""],
            "model_name": "judge",
            "distilabel_metadata": {},
        },
        scores={"score": {GOOD: 5.0, BAD: 1.0}},
        models={GOOD: "beta", BAD: "alpha"},
    ),
    "Intel/orca_dpo_pairs": Shape(
        {"system": "Be brief.", "question": QUESTION, "chosen": GOOD, "rejected": BAD},
        source=f"SYSTEM: Be brief.\nUSER: {QUESTION}",
        pairs=BETTER,
    ),
    "Intel/orca_dpo_pairs without a system message": Shape(
        {"system": "", "question": QUESTION, "chosen": GOOD, "rejected": BAD}, pairs=BETTER
    ),
    "argilla/distilabel-intel-orca-dpo-pairs": Shape(
        {
            "system": "Be brief.",
            "input": QUESTION,
            "chosen": GOOD,
            "rejected": BAD,
            "generations": [BAD, GOOD],
            "rating": [1.0, 9.0],
            "order": ["rejected", "chosen"],
            "status": "swapped",
            "chosen_score": 9.0,
        },
        source=f"SYSTEM: Be brief.\nUSER: {QUESTION}",
        pairs=BETTER,
    ),
    "LLaMA-Factory": Shape(
        {"instruction": "Answer.", "input": QUESTION, "chosen": GOOD, "rejected": BAD},
        source=f"Answer.\n{QUESTION}",
        pairs=BETTER,
    ),
    "LLaMA-Factory with everything": Shape(
        {
            "system": "Be brief.",
            "history": [["Hi", "Hi."]],
            "instruction": "Answer.",
            "input": QUESTION,
            "chosen": GOOD,
            "rejected": BAD,
        },
        source=f"SYSTEM: Be brief.\nUSER: Hi\nASSISTANT: Hi.\nUSER: Answer.\n{QUESTION}",
        pairs=BETTER,
    ),
    "ShareGPT preferences": Shape(
        {
            "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": QUESTION}],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        source=f"SYSTEM: Be brief.\nUSER: {QUESTION}",
        pairs=BETTER,
    ),
    "OpenAI batch output beside its prompt": Shape(
        {
            "custom_id": "1",
            "messages": [user(QUESTION)],
            "response": {
                "status_code": 200,
                "body": {
                    "model": "alpha",
                    "choices": [{"index": n, "message": assistant(text)} for n, text in enumerate((GOOD, BAD))],
                },
            },
            "error": None,
        },
        models={GOOD: "alpha", BAD: "alpha"},
    ),
    "MT-bench model answers beside their prompt": Shape(
        {"question_id": 1, "prompt": QUESTION, "choices": [{"turns": [GOOD]}, {"turns": [BAD]}]}
    ),
    "ours, instructions": Shape(
        {"instructions": "Answer.", "prompt": QUESTION, "candidates": [GOOD, BAD]}, source=f"Answer.\n{QUESTION}"
    ),
    "ours, system prompt": Shape(
        {"system_prompt": "Be brief.", "prompt": QUESTION, "responses": [GOOD, BAD]},
        source=f"SYSTEM: Be brief.\nUSER: {QUESTION}",
    ),
    "ours, preferences with an instruction": Shape(
        {"instruction": "Answer.", "prompt": QUESTION, "chosen": GOOD, "rejected": BAD},
        source=f"Answer.\n{QUESTION}",
        pairs=BETTER,
    ),
    "ours, preferences with messages": Shape(
        {"messages": [user(QUESTION)], "chosen": GOOD, "rejected": BAD}, pairs=BETTER
    ),
    "candidates by another name beside chosen and rejected": Shape(
        {"prompt": QUESTION, "responses": [GOOD, BAD, "?"], "chosen": GOOD, "rejected": BAD},
        candidates=frozenset((GOOD, BAD, "?")),
        pairs=BETTER,
    ),
    "winner by its name": Shape(
        {
            "prompt": QUESTION,
            "response_a": BAD,
            "response_b": GOOD,
            "model_a": "alpha",
            "model_b": "beta",
            "winner": "beta",
        },
        pairs=BETTER,
        models={GOOD: "beta", BAD: "alpha"},
    ),
    "three numbered columns": Shape(
        {"question": QUESTION, "answer_1": GOOD, "answer_2": BAD, "answer_3": "?", "winner": "answer_1"},
        candidates=frozenset((GOOD, BAD, "?")),
        pairs=frozenset({(GOOD, BAD, 1.0), (GOOD, "?", 1.0)}),
    ),
    "UltraInteract": Shape(
        {
            "dataset": "codecontest",
            "trajectory": [
                {"from": "user", "value": "Hi"},
                {"from": "assistant", "value": "Hi."},
                {"from": "user", "value": QUESTION},
            ],
            "chosen": GOOD,
            "rejected": BAD,
            "parent_id": "x",
        },
        source=f"USER: Hi\nASSISTANT: Hi.\nUSER: {QUESTION}",
        pairs=BETTER,
    ),
    "Preference Proxy Evaluations": Shape(
        {
            "question_id": "x",
            "model_a": "alpha",
            "model_b": "beta",
            "winner": "model_b",
            "prompt": QUESTION,
            "response_1": BAD,
            "response_2": GOOD,
            "is_code": False,
        },
        pairs=BETTER,
        models={BAD: "alpha", GOOD: "beta"},
    ),
    "right and wrong answers": Shape(
        {"prompt": QUESTION, "response_1": GOOD, "response_2": BAD, "scores": [True, False]},
        pairs=BETTER,
        scores={"score": {GOOD: 1.0, BAD: 0.0}},
    ),
    "OASST, pairs": Shape(
        {
            "lang": "en",
            "parent_id": "x",
            "prompt": [{"text": QUESTION, "role": "prompter"}],
            "chosen": {"text": GOOD, "role": "assistant"},
            "rejected": {"text": BAD, "role": "assistant"},
        },
        pairs=BETTER,
    ),
    "ShareGPT candidates, with tools": Shape(
        {
            "conversations": [
                {"from": "Human", "value": QUESTION},
                {"from": "tool_call", "value": "look()"},
                {"from": "tool_response", "value": "Lima"},
            ],
            "candidates": [[{"from": "gpt", "value": GOOD}], {"from": "GPT", "value": BAD}],
        },
        source=f"USER: {QUESTION}\nASSISTANT: look()\nTOOL: Lima",
    ),
    "Anthropic": Shape(
        {
            "model": "alpha",
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [user(QUESTION)],
            "candidates": [
                {"type": "message", "role": "assistant", "model": "alpha", "content": [{"type": "text", "text": GOOD}]},
                {"type": "message", "role": "assistant", "model": "beta", "content": [{"type": "text", "text": BAD}]},
            ],
        },
        source=f"SYSTEM: Be brief.\nUSER: {QUESTION}",
        models={GOOD: "alpha", BAD: "beta"},
    ),
    "Gemini": Shape(
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
            "candidates": [
                {"content": {"role": "model", "parts": [{"text": GOOD}]}, "index": 0},
                {"content": {"role": "model", "parts": [{"text": BAD}]}, "index": 1},
            ],
        },
        source=f"SYSTEM: Be brief.\nUSER: {QUESTION}",
    ),
    "replies of OpenAI's APIs": Shape(
        {
            "inputs": QUESTION,
            "candidates": [
                {"id": "x", "model": "alpha", "choices": [{"index": 0, "message": assistant(GOOD)}]},
                {"model": "beta", "output": [{"type": "reasoning", "summary": []}, assistant(BAD)]},
            ],
        },
        models={GOOD: "alpha", BAD: "beta"},
    ),
    "LangChain, with earlier turns": Shape(
        {
            "chat_history": [{"type": "human", "content": "Hi"}, {"type": "ai", "content": "Hi."}],
            "query": QUESTION,
            "candidates": [GOOD, BAD],
        },
        source=f"USER: Hi\nASSISTANT: Hi.\nUSER: {QUESTION}",
    ),
    "other spellings": Shape(
        {"System prompt": "Be brief.", "userPrompt": QUESTION, "Response A": GOOD, "RESPONSE-B": BAD, "Winner": "A"},
        source=f"SYSTEM: Be brief.\nUSER: {QUESTION}",
        pairs=BETTER,
    ),
    "by the name of the model": Shape(
        {"question": QUESTION, "answers": {"alpha": GOOD, "beta": BAD}, "preferred": "alpha"},
        pairs=BETTER,
        models={GOOD: "alpha", BAD: "beta"},
    ),
    "a dozen numbered columns": Shape(
        {"question": QUESTION, **{f"response_{n}": f"Answer {n}" for n in range(1, 13)}},
        candidates=frozenset(f"Answer {n}" for n in range(1, 13)),
    ),
    "lists as texts of JSON": Shape(
        {
            "prompt": QUESTION,
            "chosen": json.dumps([user(QUESTION), assistant(GOOD)]),
            "rejected": json.dumps([user(QUESTION), assistant(BAD)]),
        },
        pairs=BETTER,
    ),
    "lists as pandas writes them": Shape(
        {"messages": str([user(QUESTION)]), "candidates": str([GOOD, BAD]), "models": "['alpha', 'beta']"},
        models={GOOD: "alpha", BAD: "beta"},
    ),
    "texts of a chat template": Shape(
        {
            "chosen": f"<|user|>{QUESTION}<|assistant|>The {GOOD}",
            "rejected": f"<|user|>{QUESTION}<|assistant|>The {BAD}",
        },
        source=f"<|user|>{QUESTION}<|assistant|>",
        candidates=frozenset((f"The {GOOD}", f"The {BAD}")),
        pairs=frozenset({(f"The {GOOD}", f"The {BAD}", 1.0)}),
    ),
}
