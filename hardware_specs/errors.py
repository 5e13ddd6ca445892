"""The root of every error that a user of the toolkit can cause, and the one way to word an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AIQError(Exception):
    """A mistake that the caller can mend; its text is one sentence: what, got, known, next step."""


class UnknownNameError(AIQError):
    """A name that is not in the set it was looked up in."""


class SpecError(AIQError):
    """A hardware specification that is malformed or fails a lint rule."""


class MissingCeilingError(AIQError):
    """A compute ceiling that the specification does not state."""


def unknown_name(what: str, got: str, known: Iterable[str], next_step: str) -> UnknownNameError:
    """Word an unknown name with its nearest match first.

    Args:
        what: The kind of thing looked up, for instance ``"hardware"``.
        got: The name as given.
        known: Every name that would have been accepted.
        next_step: What the caller can do, without a full stop.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(got, names, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
    else:
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        hint = f"known: {shown or 'none'}."
    return UnknownNameError(f"unknown {what} {got!r}: {hint} Next: {next_step}.")
