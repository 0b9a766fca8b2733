"""Texts that a prompt puts into quotation marks, which an image is to show. Loads no torch.

quoted_texts("a dog's sign that says 'Hello'")  # ("Hello",)
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# The outer ones of marks within marks. What is between any two of a kind is a text to be shown.
_MARKS = re.compile(
    "|".join(
        (
            r'(?<!\d)"([^"]*)"',  # after a digit it is inches
            r"[“„]([^“”„]*)[“”]",  # of English, Chinese and German
            r"«([^«»]*)»",
            r"「([^「」]*)」",
            r"『([^『』]*)』",
            # An apostrophe stands within a word or at its end ("dogs'"), so that no text begins
            # there; one that ends a text has no letter after it. Not the 'n' of rock 'n' roll.
            r"(?<!\w)'(?!\s|n')((?:(?!(?<!\w)'(?=\w)).)*?)'(?!\w)",
            r"‘([^‘]*?)’(?!\w)",
        )
    ),
    re.DOTALL,
)
# For the checks of `doctor`: no two come equally near to the text of either prompt.
SIGNS = ("OPEN 24 HOURS", "OPEN 24 HOUSE", "STREET MARKET", "OPEN")
SIGN_PROMPTS = (f'a sign that says "{SIGNS[0]}"', f'a sign that says "{SIGNS[2]}"')


def quoted_texts(prompt: str) -> tuple[str, ...]:
    """What stands between quotation marks, in the prompt's order; () where nothing does.

    A text with an apostrophe at a word's end ('Dogs' Home') is told from one that ends there by
    double marks alone.
    """
    found = (match[match.lastindex or 0] for match in _MARKS.finditer(prompt))
    return tuple(text.strip() for text in found if words_of(text))


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared.

    Unicode's compatible forms (NFKC) and no case (casefold); punctuation separates words and is
    left out, symbols such as $ and + are kept, and so are accents.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = (c if unicodedata.category(c)[0] in "LMNS" else " " for c in folded)
    return "".join(kept).split()


def why_no_text(prompt: str) -> str | None:
    """Why an image of a prompt has no value; None where the prompt quotes a text."""
    return None if quoted_texts(prompt) else "the prompt has no text in quotation marks"


def signs(size: int) -> list[Image]:
    """A picture of each of `SIGNS`, size x size pixels."""
    return [sign(text, size) for text in SIGNS]


def sign(text: str, size: int = 256) -> Image:
    """Black letters on white, size x size pixels, in Pillow's own font."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (size, size), "white")
    font = ImageFont.load_default(size=size / 9)
    ImageDraw.Draw(image).text((size / 16, size / 3), text, fill="black", font=font)
    return image
