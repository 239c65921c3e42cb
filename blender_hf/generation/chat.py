"""The answer in what a language model writes."""


def answer_in(text: str) -> str:
    """Return the answer in what a model wrote: without outer white space, and without what it thought before it.

    Reasoning models write `<think> ... </think>` first; some chat templates write the opening mark for them. What stops
    in the middle of a thought has no answer.
    """
    before, closed, after = text.partition("</think>")
    opened = before.lstrip().startswith("<think>")
    if closed and (opened or "<think>" not in before):
        return after.strip()
    return "" if opened else text.strip()
