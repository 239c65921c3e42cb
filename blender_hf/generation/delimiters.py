"""User text inside a prompt of ours, between delimiters that no text can forge."""

import hashlib
from collections.abc import Sequence


def key_of(texts: Sequence[str]) -> str:
    """Return a key for the delimiters around some texts.

    The same texts always have the same key, so a prompt can be repeated. The key is their hash, so none can contain it.
    """
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:12]


def delimited(name: str, text: str, key: str) -> str:
    """Return a text between an opening and a closing delimiter, each on a line of its own."""
    return f"<{name} {key}>\n{text}\n</{name} {key}>"
