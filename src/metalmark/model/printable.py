"""Foreign words made fit for a terminal and for JSON: names out of images, guests, registries and command lines."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return a text with everything escaped that a terminal would obey or cannot show, except line feeds."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def encodable(text: str) -> str:
    r"""Return a text that is valid Unicode: bytes that were none, and other lone surrogates, are escaped (``\xff``)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:
            return text.encode("utf-8", "backslashreplace").decode()
    return text
