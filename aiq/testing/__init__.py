"""Contract tests for plug-ins, usable from any test framework: each returns, or raises a :class:`ContractError`.

``check_strategy(MyStrategy)`` and ``check_oracle(my_factory)`` are what the built-in strategies and oracles pass too.
"""

from __future__ import annotations

from aiq.testing._contract import ContractError
from aiq.testing._landscape import Landscape, made_up_landscape
from aiq.testing._oracle import check_oracle, example_context
from aiq.testing._strategy import check_strategy

__all__ = ["ContractError", "Landscape", "check_oracle", "check_strategy", "example_context", "made_up_landscape"]
