"""What the paper's experiments share: a trained network, two quantizers, and cached oracles on two splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hardware_specs
from aiq import _paper, zoo
from aiq._driver import Progress, Run, drive
from aiq._guard import guarded
from aiq._model import Model, load_model
from aiq._validate_result import FEWEST_ROUNDS
from aiq.cache import CachedOracle, EvaluationStore, canonical_scheme
from aiq.objective import Objective
from aiq.oracle import Evaluation, Oracle, OracleContext, OracleFactory
from aiq.problem import Constraints
from aiq.quantize import Recipe
from aiq.registry import load_oracle, load_strategy
from aiq.space import Choice, Space, make_space
from roofline import CostTable, LayerPrecision, OpGraph, Scheme
from roofline.errors import InputError

if TYPE_CHECKING:
    from aiq.runtimes import Runtime
    from hardware_specs import HardwareSpec

QUANTIZERS = {"paper": "nearest+max+tensor+nobias", "aiq": ""}
"""Recipes by name. The paper does not describe its quantizer: ``paper`` is the plainest that fits what it says."""
NAMES = {"paper": "paper-like", "aiq": "AIQ"}
BITS = (32, 8, 4)
"""Bits of a weight by option of a space."""
KEEP, INT8, INT4 = range(3)
OBJECTIVE = Objective("ai", _paper.LAMBDA, "minmax")
RESNET = "resnet20"
_BESIDE = "resnet20_cifar10.safetensors"

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ThroughputSettings:
    """What the throughput experiment takes beside data, weights, cache and output.

    Attributes:
        model: The network, one of the zoo.
        hardware: This machine, as ``aiq calibrate`` measured it; by default it is calibrated on the way.
        runtimes: What runs the schemes, or names; by default those of ONNX Runtime and OpenVINO that are installed.
        batch: Images in a pass.
        max_loss: Largest accuracy loss of a scheme that is chosen, percentage points.
        search_images: Choose schemes on at most so many images of the search split: greedy search evaluates once for
            each pair of layers.
        rounds: Samples of each network's time, at least 3, taken in turn.
        max_spread: Median spread above which the machine is too noisy.
        seed: Seeds random layers, calibration and resampling.
    """

    model: str = "mobilenet_v2_cifar"
    hardware: HardwareSpec | None = None
    runtimes: Sequence[str | Runtime] = ()
    batch: int = 32
    max_loss: float = 1.0
    search_images: int = 500
    rounds: int = 30
    max_spread: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        zoo.get(self.model)
        for what, value, least in (
            ("a batch size", self.batch, 1),
            ("the number of search images", self.search_images, 1),
            ("rounds", self.rounds, FEWEST_ROUNDS),
            ("the seed", self.seed, 0),
        ):
            if value < least:
                raise InputError(f"{what} must be at least {least}, got {value}. Next: raise it.")
        if not 0 <= self.max_loss < float("inf"):
            raise InputError(
                f"the largest loss must be a number of points of at least 0, got {self.max_loss}. Next: give one."
            )
        if not 0 < self.max_spread < float("inf"):
            raise InputError(f"the largest spread must be a number above 0, got {self.max_spread}. Next: give one.")


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings:
    """How to reproduce an experiment.

    Attributes:
        data: Folder (or archive) with CIFAR-10 in any form that :func:`aiq.data.load_cifar10` takes. Where it holds npz
            files of original images and ``resnet20_cifar10.safetensors``, the ResNet-20 experiments use these; else the
            weights that ship with the toolkit are used, with the image archive in the folder where there is one, since
            they were trained on such images.
        out: Folder to write to; by default ``out/reproduce/NAME``.
        weights: Files of weights by network, in place of those.
        quantizer: ``paper``, ``aiq`` or ``both``.
        limit: Evaluate only the first so many images of each split.
        cache: Where evaluations are kept (see :func:`aiq.cache.open_store`).
        oracle: What measures; it must give right and wrong for each image.
        throughput: What the throughput experiment takes beside these.
    """

    data: Path
    out: Path | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)
    quantizer: str = "both"
    limit: int | None = None
    cache: str | None = None
    oracle: str | OracleFactory = "accuracy"
    throughput: ThroughputSettings = field(default_factory=ThroughputSettings)

    def __post_init__(self) -> None:
        known = (*QUANTIZERS, "both")
        if self.quantizer not in known:
            raise InputError(f"unknown quantizer {self.quantizer!r}: known: {', '.join(known)}. Next: choose one.")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"the limit must be at least 1 image, got {self.limit}. Next: raise it, or leave it out.")
        for name in self.weights:
            zoo.get(name)

    @property
    def quantizers(self) -> tuple[str, ...]:
        """Names of the quantizers to use."""
        return tuple(QUANTIZERS) if self.quantizer == "both" else (self.quantizer,)


def recipe(quantizer: str, bits: int) -> str:
    """Return the full recipe of a quantizer at a bit-width."""
    return str(Recipe.parse(QUANTIZERS[quantizer], LayerPrecision.parse(f"w{bits}").weights))


def find_weights(network: str, settings: ReproduceSettings) -> tuple[Path, Path]:
    """Return the file of weights of a network, and where the images are that fit it.

    Raises:
        InputError: There are no trained weights.
    """
    folder = settings.data
    given, shipped = settings.weights.get(network), zoo.weights_path(network)
    original = all(any(folder.glob(f"cifar10_{part}_*.npz")) for part in ("test", "train"))
    if network == RESNET and original and given is None and (folder / _BESIDE).is_file():
        return folder / _BESIDE, folder
    archives = sorted(path for path in folder.glob("*cifar*.tar*") if path.is_file())
    images = archives[0] if archives and not (given and network == RESNET) else folder
    found = given or shipped
    if found is None:
        option = "--weights FILE" if network == RESNET else f"--weights {network}=FILE"
        raise InputError(
            f"{network} has no trained weights: none ship with aiq, and random ones would say nothing. Next: train "
            f"them with 'python -m aiq.zoo.train {network} --data {folder} --out {network}.safetensors', then give "
            f"{option}."
        )
    return Path(found), images


class Lab:
    """One trained network under the paper's accounting, with an oracle for each split.

    Attributes:
        network: Its name in the zoo.
        settings: How to reproduce.
        weights: The file of its weights.
        images: Where its images are.
        model: The network.
        graph: Its operator graph.
        measured: Evaluations run so far.
        recalled: Evaluations that the cache answered so far.
    """

    def __init__(
        self,
        network: str,
        settings: ReproduceSettings,
        store: EvaluationStore,
        tell: Tell,
        *,
        search_images: int | None = None,
    ) -> None:
        self.network, self.settings, self._store, self._tell = network, settings, store, tell
        self._search_images = search_images
        self.weights, self.images = find_weights(network, settings)
        self.model: Model = load_model(network)
        zoo.load_weights(self.model.module, self.weights)
        self.graph: OpGraph = self.model.trace()
        self.measured = self.recalled = 0
        self.fingerprints: dict[str, Mapping[str, str]] = {}
        self._spaces: dict[str, Space] = {}
        self._open: tuple[str, CachedOracle] | None = None

    def space(self, quantizer: str) -> Space:
        """Return the space of FP32, INT8 and INT4 weights: batch 1, the paper's traffic, its shortcuts kept."""
        if quantizer not in self._spaces:
            words = QUANTIZERS[quantizer]
            suffix = f"@{words}" if words else ""
            options = [LayerPrecision.parse(text) for text in ("keep", f"w8{suffix}", f"w4{suffix}")]
            machine = hardware_specs.load(_paper.MACHINE)
            self._spaces[quantizer] = make_space(CostTable(self.graph, machine, options, batch=1, traffic="paper"))
        return self._spaces[quantizer]

    @property
    def plain(self) -> Space:
        """A space to count with: names, weights and intensities are the same for every quantizer."""
        return self.space(self.settings.quantizers[0])

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are chosen for, in order of execution."""
        return tuple(unit.name for unit in self.plain.units)

    @cached_property
    def layer_weights(self) -> list[int]:
        """Number of weights of each of these layers."""
        owned = self.graph.weight_elements()
        return [sum(tensor.stored for tensor in owned[layer].values()) for layer in self.layers]

    @cached_property
    def layer_channels(self) -> list[int]:
        """Output channels of each of these layers."""
        owned = self.graph.weight_elements()
        return [max(tensor.channels for tensor in owned[layer].values()) for layer in self.layers]

    def intensities(self, choices: Sequence[Choice]) -> list[float]:
        """Return the arithmetic intensities of choices, FLOP/byte."""
        return [float(value) for value in self.plain.score(choices).arithmetic_intensity]

    def evaluate(self, split: str, quantizer: str, choices: Iterable[Choice], what: str) -> dict[Choice, Evaluation]:
        """Measure choices on a split, each through the cache.

        Raises:
            OracleError: One cannot be measured.
            CacheError: The cache cannot be read or written.
        """
        asked, space = list(dict.fromkeys(choices)), self.space(quantizer)
        where = f"{self._where(quantizer)}: {what}, {split} split"
        return dict(zip(asked, self.measure(split, [space.scheme(choice) for choice in asked], where), strict=True))

    def measure(self, split: str, schemes: Sequence[Scheme], where: str) -> list[Evaluation]:
        """Measure schemes on a split, each through the cache; ``where`` begins the lines of progress.

        Raises:
            OracleError: One cannot be measured.
            CacheError: The cache cannot be read or written.
        """
        oracle, found = self._oracle(split), []
        for number, scheme in enumerate(schemes, 1):
            found.append(self.counted(oracle, lambda: oracle.evaluate(scheme)))  # noqa: B023
            self._tell(f"{where}: {number} of {len(schemes)} evaluations")
        return found

    def search(self, strategy: str, quantizer: str) -> Run:
        """Run a search for the least L on the search split.

        Raises:
            OracleError: The float model or a scheme cannot be measured.
            CacheError: The cache cannot be read or written.
            KeyboardInterrupt: Ctrl-C; what was measured is in the cache.
        """

        return self.find(strategy, self.space(quantizer), self._where(quantizer), objective=OBJECTIVE)

    def find(
        self,
        strategy: str,
        space: Space,
        where: str,
        *,
        objective: Objective,
        constraints: Constraints | None = None,
    ) -> Run:
        """Run a search over any space of the network on the search split; ``where`` begins its lines of progress.

        Raises:
            OracleError: The float model or a scheme cannot be measured.
            CacheError: The cache cannot be read or written.
            KeyboardInterrupt: Ctrl-C; what was measured is in the cache.
        """

        def show(state: Progress) -> None:
            self._tell(
                f"{where}: {strategy}: {state.evaluations} of at most {state.limit} evaluations, "
                f"{state.cache_hits} from the cache"
            )

        oracle = self._oracle("search")
        run: Run = self.counted(
            oracle,
            lambda: drive(
                load_strategy(strategy), space, oracle, objective=objective, constraints=constraints, progress=show
            ),
        )
        if run.interrupted:
            raise KeyboardInterrupt
        if run.error is not None:
            raise run.error
        return run

    @property
    def data(self) -> str:
        """The images, as :func:`aiq.data.load` takes them."""
        own = zoo.get(self.network).data
        return own if own == "digits" else f"cifar10:{self.images}"

    def release(self) -> None:
        """Let go of the oracle and its activations; the next evaluation makes another."""
        self._open = None

    def describe(self) -> dict[str, Any]:
        """Return what the figures rest on, as plain data."""
        splits = {
            split: {key: known[key] for key in ("data", "n") if key in known}
            for split, known in self.fingerprints.items()
        }
        return {"network": self.network, "weights": self.weights.name, "splits": splits}

    def _where(self, quantizer: str) -> str:
        return f"{self.network}, {NAMES[quantizer]} quantizer"

    def counted(self, oracle: CachedOracle, call: Callable[[], Any]) -> Any:
        """Return what a call gives, and add to the counts what it asks of an oracle."""
        hits, misses = oracle.hits, oracle.misses
        try:
            return call()
        finally:
            self.recalled += oracle.hits - hits
            self.measured += oracle.misses - misses

    def _oracle(self, split: str) -> CachedOracle:
        """Return the oracle of a split; only one is kept, since each holds many activations."""
        if self._open is None or self._open[0] != split:
            self._open = None
            self._tell(f"{self.network}: loading the {split} split")
            s = self.settings
            limits = [s.limit, self._search_images if split == "search" else None]
            limit = min((given for given in limits if given is not None), default=None)
            context = OracleContext(self.model, self.graph, self.data, split, limit)
            made: Oracle = load_oracle(s.oracle, context) if isinstance(s.oracle, str) else s.oracle("", context)
            oracle = CachedOracle(guarded(made), self._store, partial(canonical_scheme, self.graph))
            self.fingerprints[split] = oracle.fingerprint
            self._open = split, oracle
        return self._open[1]
