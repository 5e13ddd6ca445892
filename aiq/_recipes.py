"""What a user writes after ``@`` is checked before any work: the roofline room knows only its form."""

from __future__ import annotations

from collections.abc import Iterable

from aiq.quantize import Recipe
from roofline import LayerPrecision, Scheme
from roofline.errors import InputError


def check_recipes(formats: Iterable[LayerPrecision]) -> None:
    """Refuse formats with a recipe that no quantizer can follow.

    Raises:
        InputError: An unknown word, or two that contradict each other.
    """
    for each in formats:
        Recipe.parse(each.recipe, each.weights)


def read_scheme(text: str) -> Scheme:
    """Read a scheme as :meth:`roofline.Scheme.parse` does, and check its recipes.

    Raises:
        InputError: A recipe with an unknown word, or with two that contradict each other.
        AIQError: See :meth:`roofline.Scheme.parse`.
    """
    scheme = Scheme.parse(text)
    try:
        check_recipes([scheme.default, *(rule.precision for rule in scheme.rules)])
    except InputError as error:
        raise InputError(f"scheme {text!r}: {error}") from None
    return scheme
