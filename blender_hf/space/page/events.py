"""What the events of the page have in common. Its modules get Gradio from here, or the command that installs it."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

from blender_hf.errors import BlenderError, require
from blender_hf.space import markup

require("gradio", "space", "the page")
import gradio as gr  # noqa: E402

__all__ = ["COPY", "PRIVATE", "gr", "mark_stale", "plain_errors", "plain_reason", "scroll_to"]

logger = logging.getLogger(__name__)

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# The clipboard of browsers exists only on https and on this machine; elsewhere the old way works.
COPY = """(text) => {
    if (navigator.clipboard) { navigator.clipboard.writeText(text); return; }
    const area = Object.assign(document.createElement("textarea"), {value: text});
    document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
}"""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show errors in plain words. Gradio renders messages as HTML, so they are escaped."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise gr.Error(escape(plain_reason(error), quote=False), print_exception=False) from error


def plain_reason(error: Exception) -> str:
    """Return what visitors are told of an error; what they can't help goes into the log."""
    if isinstance(error, BlenderError):
        return str(error)
    logger.error("a request failed", exc_info=error)
    return "Something went wrong on this side; the log says what."


def scroll_to(elem_id: str) -> str:
    """Return the script that brings results into view, unless they begin in the upper third of the screen.

    It waits for the candidates to fold. Gradio's `scroll_to_output` goes only as far as the end of what is short.
    """
    return f"""() => {{ setTimeout(() => {{
        const results = document.getElementById("{elem_id}"), top = results.getBoundingClientRect().top;
        if (top < 0 || top > innerHeight / 3) results.scrollIntoView({{behavior: "smooth"}});
    }}, 100); }}"""


def mark_stale(inputs: Sequence[Any], note: gr.HTML) -> None:
    """Show a note above results, which the style dims, as soon as one of their inputs changes, in the browser alone."""
    changes = [component.change for component in inputs]
    gr.on(changes, None, None, note, js=f"() => {json.dumps(markup.stale_html())}", **PRIVATE)
