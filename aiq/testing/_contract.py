"""What a broken contract raises."""

from __future__ import annotations


class ContractError(AssertionError):
    """A plug-in that breaks its contract; the text says which rule, and what it did instead."""


def demand(holds: bool, rule: str) -> None:
    """Raise unless the rule holds.

    Raises:
        ContractError: It does not.
    """
    if not holds:
        raise ContractError(rule)
