"""Names that stand in XML as they are."""

from perpixel.errors import InputError


def xml_text(text: str) -> str:
    """The text, which XML can hold and gives back unchanged.

    Raises:
        InputError: a control character, or white space at an end, which readers take away.
    """
    if not text.isprintable() or text != text.strip():
        raise InputError(
            f"the name {text!r} cannot be written to xml: rename it without control characters and outer spaces"
        )
    return text
