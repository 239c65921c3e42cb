import pytest

from blender_hf.generation.outcomes import answer_in


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 4 \n", "4"),
        ("<think>2 and 2</think>\n\n4", "4"),
        ("\n<think>\n</think>4", "4"),
        ("2 and 2 are\n</think>\n4", "4"),  # the template wrote the opening mark
        ("<think>2 and", ""),  # it ended within its thoughts
        ("Use <think> and </think> as marks.", "Use <think> and </think> as marks."),
        ("<think>a</think> Write </think> here", "Write </think> here"),
    ],
)
def test_thoughts_are_no_part_of_an_answer(text: str, answer: str) -> None:
    assert answer_in(text) == answer
