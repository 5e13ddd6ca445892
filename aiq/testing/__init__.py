"""Contract tests for plug-ins, usable from any test framework: each returns, or raises a :class:`ContractError`.

``check_strategy(MyStrategy)``, ``check_oracle(my_factory)`` and ``check_runtime(MyRuntime())`` are what the built-in
strategies, oracles and runtimes pass too.
"""

from __future__ import annotations

from aiq.testing._contract import ContractError
from aiq.testing._landscape import Landscape, made_up_landscape
from aiq.testing._oracle import check_oracle, example_context
from aiq.testing._runtime import check_runtime, example_deployment
from aiq.testing._strategy import check_strategy

__all__ = [
    "ContractError",
    "Landscape",
    "check_oracle",
    "check_runtime",
    "check_strategy",
    "example_context",
    "example_deployment",
    "made_up_landscape",
]
