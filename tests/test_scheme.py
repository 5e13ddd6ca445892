"""Schemes: precedence, patterns, keeps, files, digests, and the wording of every refusal."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofline import LayerPrecision, Precision, Rule, Scheme
from roofline.errors import PrecisionError, SchemeError, UnknownNameError

LAYERS = ("conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.shortcut.0", "layer2.0.conv1", "fc")
KEEP = LayerPrecision()


def formats(text: str, *, keep: tuple[str, ...] = ()) -> dict[str, str]:
    return {k: str(v) for k, v in Scheme.parse(text).resolve(LAYERS, keep_weights=keep).items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("keep", dict.fromkeys(LAYERS, "keep")),
        ("w8", dict.fromkeys(LAYERS, "int8/keep")),
        ("w4,conv1=keep", {**dict.fromkeys(LAYERS, "int4/keep"), "conv1": "keep"}),
        # a name is a whole name: conv1 is not layer1.0.conv1
        ("w4,fc=w8a8,conv1=fp16", {**dict.fromkeys(LAYERS, "int4/keep"), "fc": "int8/int8", "conv1": "fp16/fp16"}),
        # the first rule that matches wins, in either order
        ("w8,fc=w4,*=keep", {**dict.fromkeys(LAYERS, "keep"), "fc": "int4/keep"}),
        ("w8,*=keep,fc=w4", dict.fromkeys(LAYERS, "keep")),
        # globs cross dots, and know ? and [...]
        ("keep,layer1.*=w8", {k: "int8/keep" if k.startswith("layer1") else "keep" for k in LAYERS}),
        ("keep,*.conv?=w8", {k: "int8/keep" if ".conv" in k else "keep" for k in LAYERS}),
        ("keep,layer[2-9].*=w8", {k: "int8/keep" if k.startswith("layer2") else "keep" for k in LAYERS}),
        # expressions match whole names
        (r"keep,re:layer\d\.0\.conv1=w8", {k: "int8/keep" if k.endswith("0.conv1") else "keep" for k in LAYERS}),
        ("keep,re:conv.=w8", {k: "int8/keep" if k == "conv1" else "keep" for k in LAYERS}),
        ("keep,re:(?=conv1)conv1=w8", {k: "int8/keep" if k == "conv1" else "keep" for k in LAYERS}),
        ("w8, fc = w4 ", {**dict.fromkeys(LAYERS, "int8/keep"), "fc": "int4/keep"}),
    ],
)
def test_precedence(text: str, expected: dict[str, str]) -> None:
    assert formats(text) == expected


def test_declared_keeps_hold_against_the_default_only() -> None:
    keep = ("*shortcut*",)
    shortcut = "layer1.0.shortcut.0"
    assert formats("w8a8", keep=keep) == {**dict.fromkeys(LAYERS, "int8/int8"), shortcut: "keep/int8"}
    assert formats("w8", keep=keep)[shortcut] == "keep"
    assert formats(f"w8a8,{shortcut}=w4", keep=keep)[shortcut] == "int4/keep"
    assert formats("keep,layer1.*=w4", keep=keep)[shortcut] == "int4/keep"
    assert formats("w8,re:.*=w4", keep=keep)[shortcut] == "int4/keep"
    assert formats("w8,conv1=w4", keep=keep)[shortcut] == "keep"
    assert formats("w8a8", keep=("re:.*shortcut.0",))[shortcut] == "keep/int8"


def test_explicit_tells_a_rule_from_the_default() -> None:
    scheme = Scheme.parse("w8,fc=keep")
    assert scheme.explicit("fc") == KEEP
    assert scheme.explicit("conv1") is None


def test_a_rule_may_name_what_is_known_besides_the_layers() -> None:
    scheme = Scheme.parse("w8,softmax=fp32")
    assert scheme.resolve(LAYERS, known=["softmax"]).keys() == set(LAYERS)
    with pytest.raises(UnknownNameError):
        scheme.resolve(LAYERS)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("conv2", "did you mean 'conv1'"),
        ("layer1.0.convl", "did you mean 'layer1.0.conv"),
        ("zzz", f"known: {', '.join(sorted(LAYERS))}."),
        ("layer9.*", "Next: "),
        ("re:layer9.*", "Next: "),
        ("Conv1", "did you mean 'conv1'"),
    ],
)
def test_a_rule_that_matches_nothing_is_refused(pattern: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        Scheme.parse(f"w8,{pattern}=keep").resolve(LAYERS)
    text = str(caught.value)
    assert text.startswith(f"unknown layer {pattern!r}: ")
    assert hint in text
    assert text.endswith("Next: run 'aiq graph MODEL' for the names.")


def test_a_rule_behind_a_wider_one_still_names_a_layer() -> None:
    with pytest.raises(UnknownNameError):
        Scheme.parse("w8,*=w4,nosuch=keep").resolve(LAYERS)


TOML = """
version = 1
default = "w4:g128"

[[rules]]
layers = "conv1"
precision = "keep"

[[rules]]
layers = "re:layer2.*"
precision = "w8a8"
"""
FROM_TOML = Scheme(
    LayerPrecision.parse("w4:g128"),
    (Rule("conv1", KEEP), Rule("re:layer2.*", LayerPrecision.parse("w8a8"))),
    "mixed",
)


def test_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "mixed.toml"
    path.write_text(TOML)
    assert Scheme.parse(str(path)) == FROM_TOML
    assert str(Scheme.parse(str(path))) == "mixed"


def test_json_file_is_what_a_scheme_writes(tmp_path: Path) -> None:
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps(FROM_TOML.to_dict()))
    assert Scheme.parse(str(path)) == FROM_TOML


def test_a_file_may_leave_out_everything(tmp_path: Path) -> None:
    path = tmp_path / "empty.toml"
    path.write_text("")
    assert Scheme.parse(str(path)).digest() == Scheme().digest()


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.toml", "default = ", SchemeError, "{path}: malformed TOML: "),
        ("a.json", "{", SchemeError, "{path}: malformed JSON: "),
        ("a.json", "\xff", SchemeError, "{path}: malformed JSON: "),
        ("a.json", "[1]", SchemeError, "{path}: holds no table of version, default and rules. Next: write one."),
        (
            "a.toml",
            "rulez = 1",
            SchemeError,
            "{path}: unknown key 'rulez': known: version, default, rules. Next: mend it.",
        ),
        ("a.toml", "version = 2", SchemeError, "{path}: version 2, known: 1. Next: write it anew."),
        (
            "a.toml",
            "[rules]\nlayers = 'a'",
            SchemeError,
            "{path}: rules must be a list of tables. Next: write [[rules]] before each.",
        ),
        (
            "a.toml",
            "[[rules]]\nlayers = 'a'",
            SchemeError,
            "{path}: rules[0]: needs exactly the keys layers and precision. Next: write layers = 'conv1', "
            "precision = 'w8'.",
        ),
        (
            "a.toml",
            "[[rules]]\nlayers = 're:('\nprecision = 'w8'",
            SchemeError,
            "{path}: rules[0]: 're:(' is no regular expression: missing ), unterminated subpattern at position 0. "
            "Next: mend it.",
        ),
        ("a.toml", "default = 8", SchemeError, "{path}: default: precision 8 is no text. Next: write for instance"),
        (
            "a.toml",
            "[[rules]]\nlayers = 'a'\nprecision = 'w99'",
            PrecisionError,
            "{path}: rules[0]: unknown precision 'w99': known: fp64,",
        ),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, content: str, error: type[Exception], message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(error) as caught:
        Scheme.parse(str(path))
    assert str(caught.value).startswith(message.format(path=path))
    assert "Next: " in str(caught.value)


@pytest.mark.parametrize("name", ["nosuch.toml", "dir/nosuch.json"])
def test_missing_file(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SchemeError) as caught:
        Scheme.parse(name)
    assert str(caught.value) == (f"cannot read scheme file {name!r}: No such file or directory. Next: check the path.")


def test_a_shorthand_never_reads_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "w8").write_text("default = 'w4'")
    monkeypatch.chdir(tmp_path)
    assert Scheme.parse("w8").default == LayerPrecision.parse("w8")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("w8,conv1", SchemeError, "scheme 'w8,conv1': 'conv1' is not LAYER=PRECISION. Next: write for instance"),
        ("w8,=w4", SchemeError, "scheme 'w8,=w4': '=w4' is not LAYER=PRECISION. Next: write for instance"),
        ("w8,", SchemeError, "scheme 'w8,': '' is not LAYER=PRECISION. Next: write for instance"),
        ("w8,re:(=w4", SchemeError, "scheme 'w8,re:(=w4': 're:(' is no regular expression: "),
        ("w8,conv1=w1", PrecisionError, "scheme 'w8,conv1=w1': unknown precision 'w1': known: fp64,"),
        ("w1", PrecisionError, "unknown precision 'w1': known: fp64,"),
        ("", PrecisionError, "unknown precision '': known: fp64,"),
    ],
)
def test_malformed_text(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Scheme.parse(text)
    assert str(caught.value).startswith(message)


def test_digest_is_stable() -> None:
    # Caches on disk are addressed by this: a change here must come with a new SCHEME_VERSION.
    assert Scheme().digest() == "33bd878c214bbd4b480bd103315dafaf37354b0751235523ffbf96554f555e09"
    assert FROM_TOML.digest() == "2f7937de066982a036489539a96e9e424764b082d2b3e3dc478ac7984d8c55c2"
    assert FROM_TOML.digest() == Scheme(FROM_TOML.default, FROM_TOML.rules, "other name").digest()
    assert Scheme.parse("w4:g128,conv1=keep,re:layer2.*=w8a8").digest() == FROM_TOML.digest()
    assert Scheme.parse("W4:G128:s16,conv1=KEEP,re:layer2.*=int8/int8").digest() == FROM_TOML.digest()


@pytest.mark.parametrize(
    "other",
    [
        "w4:g64,conv1=keep,re:layer2.*=w8a8",
        "w4:g128,conv1=keep,re:layer2.*=w8",
        "w4:g128,conv2=keep,re:layer2.*=w8a8",
        "w4:g128,re:layer2.*=w8a8,conv1=keep",
        "w4:g128,conv1=keep",
        "w4:g128a8,conv1=keep,re:layer2.*=w8a8",
        "w4:g128:z,conv1=keep,re:layer2.*=w8a8",
    ],
)
def test_digest_is_sensitive(other: str) -> None:
    assert Scheme.parse(other).digest() != FROM_TOML.digest()


_formats = st.sampled_from(["keep", "w8", "w4:g128", "w4a8", "keep/int8", "fp16", "int4:c:z8/bf16"])
_patterns = st.sampled_from(["conv1", "layer1.*", "re:fc|conv1", "fc", "*", "ünïcode", "a=b", "a,b"])


@given(_formats, st.lists(st.tuples(_patterns, _formats), max_size=5))
def test_canonical_json_round_trips(default: str, rules: list[tuple[str, str]]) -> None:
    scheme = Scheme(
        LayerPrecision.parse(default), tuple(Rule(pattern, LayerPrecision.parse(text)) for pattern, text in rules)
    )
    again = Scheme.from_dict(json.loads(json.dumps(scheme.to_dict())))
    assert again == scheme
    assert again.digest() == scheme.digest()
    assert hash(again) == hash(scheme)


@pytest.mark.parametrize("text", ["w8", "w4:g128,conv1=keep", "keep,re:layer\\d.*=w8a8,fc=fp16"])
def test_text_form_reads_back(text: str) -> None:
    unnamed = Scheme(Scheme.parse(text).default, Scheme.parse(text).rules)
    assert str(Scheme.parse(text)) == text
    assert Scheme.parse(str(unnamed)).digest() == unnamed.digest()


def test_schemes_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Scheme().default = KEEP  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Rule("a", KEEP).pattern = "b"  # type: ignore[misc]


def test_the_empty_scheme_keeps_everything() -> None:
    assert Scheme().resolve(LAYERS) == dict.fromkeys(LAYERS, KEEP)
    assert Scheme.parse("w8").resolve(LAYERS)["fc"] == LayerPrecision(Precision("int8", 8), None)
