"""Texts from outside inside a prompt of ours: between marks that no text can forge."""

import hashlib
from collections.abc import Sequence


def key_of(texts: Sequence[str]) -> str:
    """Return a key for the marks around some texts.

    It is the same for the same texts, so that a prompt can be repeated. As it is made from them, none can hold it.
    """
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:12]


def marked(name: str, text: str, key: str) -> str:
    """Put a text between two marks that carry the key, on lines of their own."""
    return f"<{name} {key}>\n{text}\n</{name} {key}>"
