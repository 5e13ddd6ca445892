"""The schema of a machine: ceilings, memory levels and overheads, each number with its source."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hardware_specs._kernels import Format, Frozen, KernelModel, Positive, Share
from hardware_specs.errors import MissingCeilingError, SpecError, unknown_name

Kind = Literal["datasheet", "measured", "derived"]
Rates = Literal["datasheet", "sustained", "calibrated"]
Technology = Literal[
    "gddr5", "gddr6", "gddr6x", "gddr7", "hbm2", "hbm2e", "hbm3", "hbm3e", "ddr4", "ddr5", "lpddr4", "lpddr5", "sram"
]


class Quantity(Frozen):
    """One number in SI base units, with where it comes from.

    ``kind`` is ``datasheet`` (the vendor prints it), ``measured`` (a stopwatch found it) or ``derived`` (computed from
    such numbers; ``source`` then states the derivation).
    """

    value: Positive
    kind: Kind
    source: Annotated[str, Field(min_length=8)]


class CrossCheck(Frozen):
    """The same number from an independent source; the linter compares the two."""

    value: Positive
    source: Annotated[str, Field(min_length=8)]


class Rated(Quantity):
    """A peak rate, with the sustained rate where somebody measured it.

    ``value`` is the peak (of an overhead: the floor). ``sustained`` is what the device keeps up under load, clock and
    power limits included (of an overhead: what an eager framework pays).
    """

    sustained: Quantity | None = None
    second: CrossCheck | None = None


class Ceiling(Rated):
    """A *dense* compute ceiling in FLOP/s (integer formats: OP/s; one multiply-accumulate is two).

    Sparsity is never part of ``value``: ``sparsity_factor`` states it apart. ``units`` × ``ops_per_clock`` ×
    ``clock_hz`` restates the peak from the geometry of the chip where that is known; the linter holds the two together.
    """

    sparsity_factor: Annotated[float, Field(ge=1, le=4)] = 1.0
    units: Positive | None = None
    ops_per_clock: Positive | None = None
    clock_hz: Positive | None = None


class MemoryLevel(Frozen):
    """One level of memory: capacity in bytes, bandwidth in bytes/s as seen by the compute units.

    ``bus_bits`` × ``transfers_per_s`` / 8 restates the bandwidth where the interface is known; ``technology`` lets the
    linter check the rate of a pin and the size of a channel.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    bandwidth_bytes_per_s: Rated
    capacity_bytes: Quantity | None = None
    bus_bits: Positive | None = None
    transfers_per_s: Positive | None = None
    technology: Technology | None = None


class HardwareSpec(Frozen):
    """A machine as the roofline model sees it.

    ``compute`` maps a number format to its dense ceiling, ``memory`` lists the levels from the outermost (DRAM) to the
    innermost. ``rates`` says which figures the accessors return: the datasheet peaks, or the sustained ones where they
    were measured (see :meth:`sustained`); ``calibrated`` beside that prices rows by the ``kernels`` fitted for
    ``runtime`` (see :meth:`calibrated`). ``one_float_format`` names the runtimes, among those of ``kernels``, that
    compute all floating-point layers of a network in the narrowest of their formats. ``common_variance`` is, by
    runtime, the share of the variance of rows' errors that is common to all rows of a pass, as calibration found it.
    ``threads`` is what ``kernels`` were measured with, where that is known. ``price_usd_per_hour`` is an on-demand list
    price of the whole machine; its source names the provider, the region and the day.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    vendor: str
    kind: Literal["gpu", "cpu", "tpu", "npu", "soc"]
    architecture: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    chip: str | None = None
    aliases: tuple[str, ...] = ()
    compute: dict[Format, Ceiling]
    memory: Annotated[tuple[MemoryLevel, ...], Field(min_length=1)]
    launch_overhead_s: Rated | None = None
    tdp_w: Quantity | None = None
    price_usd_per_hour: Quantity | None = None
    kernels: tuple[KernelModel, ...] = ()
    one_float_format: tuple[str, ...] = ()
    common_variance: dict[str, Share] = Field(default_factory=dict)
    threads: Annotated[int | None, Field(ge=1)] = None
    note: str = ""
    rates: Rates = "datasheet"
    runtime: str = ""

    @model_validator(mode="after")
    def _levels_have_order(self) -> HardwareSpec:
        names = [level.name for level in self.memory]
        if len(set(names)) != len(names):
            raise ValueError(f"memory levels must have distinct names, got {', '.join(names)}")
        if reserved := {"compute", "overhead", "transition"} & set(names):
            raise ValueError(
                f"memory level {min(reserved)!r} has the name of another resource: choose dram, l3, l2 or l1"
            )
        for inner in self.memory[1:]:
            if inner.capacity_bytes is None:
                raise ValueError(f"memory level {inner.name!r} needs capacity_bytes: only the outermost may omit it")
        if not self.compute:
            raise ValueError("compute must state at least one ceiling")
        return self

    @model_validator(mode="after")
    def _kernels_are_distinct(self) -> HardwareSpec:
        seen: set[tuple[str, str, str, str, bool]] = set()
        for model in self.kernels:
            formats = ("/".join(sorted(model.formats)),) if model.op == "transition" else model.formats
            endings = (True, False) if model.rounded is None else (model.rounded,)
            for fmt, variant, ending in product(formats, model.variants or ("",), endings):
                key = model.runtime, model.op, fmt, variant, ending
                if key in seen:
                    what = " ".join(filter(None, key[1:4]))
                    raise ValueError(f"two kernel models of {model.runtime} speak of {what}")
                seen.add(key)
        if self.rates == "calibrated" and self.runtime not in self.runtimes:
            raise ValueError(f"rates 'calibrated' need kernels of the runtime, got {self.runtime!r}")
        for what, names in (("one_float_format", self.one_float_format), ("common_variance", self.common_variance)):
            for name in names:
                if name not in self.runtimes:
                    known = ", ".join(self.runtimes) or "none"
                    raise ValueError(f"{what} needs kernels of the runtime, got {name!r}, known: {known}")
        return self

    def ceiling(self, fmt: str) -> float:
        """Return the dense ceiling of ``fmt`` in FLOP/s.

        Raises:
            MissingCeilingError: The machine states no such ceiling; the text lists those it has.
        """
        for known, ceiling in self.compute.items():
            if known == fmt:
                return self._rate(ceiling)
        raise MissingCeilingError(
            f"{self.name} states no {fmt} ceiling: it has {', '.join(self.compute)}. "
            f"Next: choose one of these formats, or add [compute.{fmt}] with its source to the specification."
        )

    def bandwidth(self, level: int = 0) -> float:
        """Return the bandwidth in bytes/s of memory level ``level`` (0 is the outermost)."""
        return self._rate(self.memory[level].bandwidth_bytes_per_s)

    @property
    def overhead_s(self) -> float:
        """Seconds that an operation takes at least; 0 where no figure is known.

        The peak figure is what back-to-back launches reach, the sustained one what an eager framework pays.
        """
        return self._rate(self.launch_overhead_s) if self.launch_overhead_s else 0.0

    @property
    def rates_label(self) -> str:
        """What the rates in force are: ``sustained rates``, or ``datasheet peaks`` (of slices: ``derived peaks``)."""
        if self.rates == "sustained":
            return "sustained rates"
        if self.rates == "calibrated":
            return f"kernels calibrated for {self.runtime}"
        leading = self.compute.get("fp32") or next(iter(self.compute.values()))
        return f"{leading.kind} peaks"

    @property
    def time_label(self) -> str:
        """What a time on this machine is: ``bound from datasheet peaks``, ``predicted by kernels calibrated for …``."""
        return f"{'predicted by' if self.rates == 'calibrated' else 'bound from'} {self.rates_label}"

    @property
    def rates_option(self) -> str:
        """The rates in force as the option ``--rates`` takes them: ``datasheet``, ``calibrated:openvino``."""
        return f"{self.rates}:{self.runtime}" if self.rates == "calibrated" else self.rates

    @property
    def computes_in_one_float(self) -> bool:
        """Whether rows are priced for a runtime that computes all floating-point layers in one format."""
        return self.rates == "calibrated" and self.runtime in self.one_float_format

    def sustained(self) -> HardwareSpec:
        """Return the same machine with its sustained rates in force where they were measured."""
        return self.model_copy(update={"rates": "sustained"})

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that kernel models were fitted for, in the order of the file."""
        return tuple(dict.fromkeys(model.runtime for model in self.kernels))

    def calibrated(self, runtime: str | None = None) -> HardwareSpec:
        """Return the same machine with the kernel models of a runtime in force, and sustained rates for the rest.

        Args:
            runtime: Its name; may be left out where the machine has models of one runtime only.

        Raises:
            SpecError: The machine has no kernel models, or of several runtimes none is named.
            UnknownNameError: It has none of this runtime.
        """
        known = self.runtimes
        if not known:
            raise SpecError(
                f"{self.name} has no calibrated kernel models. Next: choose --rates datasheet or sustained."
            )
        if runtime is None and len(known) > 1:
            raise SpecError(
                f"{self.name} has kernel models of several runtimes: {', '.join(known)}. "
                f"Next: choose one, for instance --rates calibrated:{known[0]}."
            )
        if runtime is not None and runtime not in known:
            raise unknown_name(f"runtime of {self.name}", runtime, known, "choose one that it was calibrated with")
        return self.model_copy(update={"rates": "calibrated", "runtime": runtime or known[0]})

    def has_sustained(self) -> bool:
        """Tell whether any ceiling, bandwidth or overhead has a measured sustained rate."""
        rated = [
            *self.compute.values(),
            *(level.bandwidth_bytes_per_s for level in self.memory),
            self.launch_overhead_s,
        ]
        return any(r.sustained for r in rated if r)

    def _rate(self, rated: Rated) -> float:
        if self.rates != "datasheet" and rated.sustained:
            return rated.sustained.value
        return rated.value
