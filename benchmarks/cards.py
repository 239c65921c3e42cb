"""Puts measured figures into a card, between two marks, so that no figure is typed by hand."""

from pathlib import Path

from blender_hf.export.cards import markdown_table

__all__ = ["markdown_table", "show_figures", "write_figures"]

BEGIN, END = "<!-- figures: written by {script} -->", "<!-- end of figures -->"


def show_figures(text: str, script: str, card: Path | None) -> None:
    """Print the figures of a script, and write them into a card if one is given; see `write_figures`."""
    print(text)
    if card is not None:
        write_figures(card, script, text)


def write_figures(card: Path, script: str, text: str) -> None:
    """Replace what stands between the marks of a script in a card.

    Args:
        card: The Markdown file.
        script: The script that measured, as the mark names it.
        text: The figures.

    Raises:
        ValueError: If the card has no such marks.
    """
    begin = BEGIN.format(script=script)
    old = card.read_text(encoding="utf-8")
    head, found, rest = old.partition(begin)
    if not found or END not in rest:
        raise ValueError(f"{card} has no place for the figures of {script}: add the lines {begin!r} and {END!r}")
    tail = rest.partition(END)[2]
    card.write_text(f"{head}{begin}\n{text.strip()}\n{END}{tail}", encoding="utf-8")
