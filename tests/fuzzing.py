"""Seeded mutations of files and data, for tests that nothing but a sentence ever comes out of a broken one.

``python -m tests.fuzzing 20000`` reads that many mutated ONNX files, configurations and machine files, and prints the
seed of each that fails.
"""

from __future__ import annotations

import copy
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from roofline.errors import AIQError

INTEGERS = (0, 1, -1, 2, 7, 255, 2**31 - 1, -(2**31), 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1e-45, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 0.5)
_LAYERS = ("num_hidden_layers", "n_layer", "encoder_layers", "decoder_layers", "num_layers")
TEXTS = ("", "\x00", "/", "../../../../etc/passwd", "x" * 5000, "é☃", "0", "-1", "null", "{", "[" * 2000, "%s%n")


def mutate_bytes(content: bytes, random_: random.Random) -> bytes:
    """Return the content with one to six random injuries: cut, flipped, overwritten, doubled, dropped, inserted."""
    found = bytearray(content)
    for _ in range(random_.randint(1, 6)):
        place, length = random_.randrange(len(found) + 1), random_.choice((1, 2, 4, 16, 256))
        kind = random_.randrange(7)
        if kind == 0:
            del found[place:]
        elif kind == 1 and place < len(found):
            found[place] ^= 1 << random_.randrange(8)
        elif kind == 2:
            found[place : place + length] = random_.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * length
        elif kind == 3:
            found[place:place] = found[place : place + length]
        elif kind == 4:
            del found[place : place + length]
        elif kind == 5:
            found[place:place] = random_.randbytes(length)
        else:
            other = random_.randrange(len(found) + 1)
            found[place : place + length] = found[other : other + length]
    return bytes(found)


def mutate_message(message: Any, random_: random.Random) -> Any:
    """Return a copy of a protobuf message with one to six of its fields changed, emptied, doubled or mixed up."""
    found = copy.deepcopy(message)
    for _ in range(random_.randint(1, 6)):
        owners = list(_messages(found))
        owner = random_.choice(owners)
        fields = [field for field, _ in owner.ListFields()]
        field = random_.choice(fields or list(owner.DESCRIPTOR.fields))
        try:
            _change(owner, field, owners, random_)
        except (TypeError, ValueError):
            owner.ClearField(field.name)
    return found


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(inner)


def _change(owner: Any, field: Any, owners: list[Any], random_: random.Random) -> None:
    value = getattr(owner, field.name)
    several = not isinstance(value, str | bytes | int | float) and not hasattr(value, "ListFields")
    kind = random_.randrange(5)
    if kind == 0:
        owner.ClearField(field.name)
    elif several and kind == 1 and len(value):
        del value[random_.randrange(len(value))]
    elif several and kind == 2 and len(value):
        value.extend([value[random_.randrange(len(value))]])
    elif field.message_type is not None:
        others = [m for m in owners if m.DESCRIPTOR is field.message_type]
        target = random_.choice(value) if several and len(value) else value
        if others and hasattr(target, "CopyFrom"):
            target.CopyFrom(copy.deepcopy(random_.choice(others)))
    elif several and len(value):
        value[random_.randrange(len(value))] = _scalar(value[0], owners, random_)
    elif not several:
        setattr(owner, field.name, _scalar(value, owners, random_))


def _scalar(value: Any, owners: list[Any], random_: random.Random) -> Any:
    if isinstance(value, str):
        names = [t for m in owners for f, t in m.ListFields() if isinstance(t, str)]
        return random_.choice((*TEXTS, *names))
    if isinstance(value, bytes):
        return mutate_bytes(value, random_) if value else random_.choice(TEXTS).encode()
    return random_.choice(FLOATS) if isinstance(value, float) else random_.choice(INTEGERS)


def mutate_data(data: Any, random_: random.Random) -> Any:
    """Return a copy of nested dicts and lists, as JSON and TOML hold, with one to four entries changed or mixed up."""
    found = copy.deepcopy(data)
    for _ in range(random_.randint(1, 4)):
        places = list(_places(found))
        if not places:
            break
        owner, key = random_.choice(places)
        kind = random_.randrange(6)
        if kind == 0:
            del owner[key]
        elif kind == 1:
            other, place = random_.choice(places)
            owner[key] = copy.deepcopy(other[place])
        elif kind == 2 and isinstance(owner, dict):
            owner[random_.choice(TEXTS)] = owner.pop(key)
        elif kind == 3:
            owner[key] = random_.choice(({}, [], [[]], {"": {}}, True, False))
        else:
            owner[key] = random_.choice((*INTEGERS, *FLOATS, *TEXTS))
    return found


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield data, key
        yield from _places(value)


def failure(read: Callable[[], Any]) -> str:
    """Return the traceback of what is no sentence of ours; empty where reading succeeds or refuses with one."""
    try:
        read()
    except AIQError as error:
        text = str(error)
        return "" if "Next: " in text and "\n" not in text else f"no sentence: {text!r}"
    except Exception:
        return traceback.format_exc()
    return ""


def onnx_case(seed: int, folder: Path) -> Path:
    """Write one mutated ONNX file, by its bytes or by its fields, and return its path."""
    from tests.onnx_graphs import SEEDS

    random_ = random.Random(seed)
    model = SEEDS[seed % len(SEEDS)]()
    if random_.random() < 0.5:
        content = mutate_bytes(model.SerializeToString(), random_)
    else:
        content = mutate_message(model, random_).SerializeToString()
    path = folder / f"{seed}.onnx"
    path.write_bytes(content)
    return path


def config_case(seed: int) -> dict[str, Any]:
    """Return one mutated configuration of a shipped language model, of two layers."""
    from roofline.frontends._shipped import shipped, shipped_names

    random_ = random.Random(seed)
    config = copy.deepcopy(dict(shipped(random_.choice(shipped_names())).config))
    found: dict[str, Any] = mutate_data({**config, **{key: 2 for key in _LAYERS if key in config}}, random_)
    return found


def spec_case(seed: int) -> str:
    """Return the text of one mutated machine file."""
    import hardware_specs

    random_ = random.Random(seed)
    text = hardware_specs.to_json(hardware_specs.load(random_.choice(hardware_specs.names())))
    return mutate_bytes(text.encode(), random_).decode(errors="replace")


def _case(seed: int, folder: Path) -> Callable[[], Any]:
    """Return what reads the mutant of a seed: an ONNX file, a configuration or a machine file, in turn."""
    import hardware_specs
    import roofline
    from roofline.frontends.transformers import from_config

    if seed % 3 == 0:
        path = onnx_case(seed, folder)
        return lambda: roofline.read_onnx(path).to_dict()
    if seed % 3 == 1:
        config = config_case(seed)
        return lambda: from_config(config, phase="decode", context=8).to_dict()
    path = folder / f"{seed}.json"
    path.write_text(spec_case(seed), "utf-8")
    return lambda: hardware_specs.lint(hardware_specs.load(str(path)))


def main(count: int, first: int = 0) -> int:
    """Read mutated files; return how many fail."""
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        for seed in range(first, first + count):
            read = _case(seed, Path(name))
            found = failure(read)
            for path in Path(name).iterdir():
                path.unlink()
            if found:
                failed += 1
                sys.stdout.write(f"seed {seed}: {found}\n")
    sys.stdout.write(f"{count} files, {failed} failed\n")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(*map(int, sys.argv[1:] or ["1000"])) else 0)
