import torch

from blender_hf.modeling.padding import pad_right


def test_shorter_rows_are_filled_on_the_right() -> None:
    batch = pad_right([(5, 6, 7), [8], range(2)], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9], [0, 1, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_no_rows_are_a_batch_too() -> None:
    assert pad_right([], pad_token_id=0)["input_ids"].shape == (0, 0)
