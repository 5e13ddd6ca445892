"""The cache commands: what it holds, moved through a file of lines, thinned out."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aiq.cache import import_evaluations, open_store
from aiq.oracle import Metric, fingerprint_digest
from roofline import Scheme
from tests.commands import FORMATS, run, subprocess_run
from tests.evaluations import FINGERPRINT, evaluation, record, same
from tests.refusals import DEEP, GARBAGE, LONG, refusal, write

URL = "sqlite:///a.db"
OTHER = {"model": "other", "metric": "nats"}
DIGEST, OTHER_DIGEST = fingerprint_digest(FINGERPRINT), fingerprint_digest(OTHER)
LOSS = Metric("loss", "nats", False)


@pytest.fixture
def filled(here: Path) -> Path:
    with open_store(URL) as store:
        store.add(record(number) for number in range(5))
        store.add(
            replace(record(number, OTHER, "2025-06-01T00:00:00+00:00"), metric=LOSS, scheme=Scheme.parse(text))
            for number, text in ((5, "w4"), (7, "w8@gptq,layer*=keep,re:a.=int4:g32/fp16"))
        )
    return here / "a.db"


def held(url: str = URL) -> int:
    with open_store(url, create=False) as store:
        return store.stats().evaluations


def read(command: str, fmt: str) -> Any:
    code, out, err = run("cache", command, "--cache", URL, "--format", fmt)
    assert (code, err) == (0, "")
    return json.loads(out) if fmt == "json" else list(csv.DictReader(io.StringIO(out))) if fmt == "csv" else out


@pytest.mark.parametrize("fmt", FORMATS)
def test_stats(fmt: str, filled: Path) -> None:
    seconds = sum(evaluation(number).seconds for number in (0, 1, 2, 3, 4, 5, 7))
    found = read("stats", fmt)
    if fmt in ("table", "md"):
        assert found.startswith(f"7 evaluations of 2 oracles, which took {seconds:.2f} s to measure\n")
        assert "a.db" in found
        return
    assert fmt != "json" or found.pop("schema_version") == 1
    row = found if fmt == "json" else found[0]
    assert {**row, "bytes": 0} == {
        "path": "a.db",
        "bytes": 0,
        "oracles": 2 if fmt == "json" else "2",
        "evaluations": 7 if fmt == "json" else "7",
        "seconds": pytest.approx(seconds) if fmt == "json" else row["seconds"],
    }
    assert int(row["bytes"]) >= filled.stat().st_size
    assert float(row["seconds"]) == pytest.approx(seconds)


@pytest.mark.parametrize("fmt", FORMATS)
def test_list(fmt: str, filled: Path) -> None:
    found = read("list", fmt)
    if fmt in ("table", "md"):
        lines = found.splitlines()
        assert lines[0] == "2 oracles with 7 evaluations, last stored first"
        other, toy = (next(line for line in lines if digest[:12] in line) for digest in (OTHER_DIGEST, DIGEST))
        assert lines.index(other) < lines.index(toy)
        assert all(text in toy for text in ("toy", "accuracy", "digits", "search", "300", "2025-01-02 03:04"))
        assert all(text in other for text in ("other", "loss", "–", "2025-06-01 00:00"))
        return
    rows = found["oracles"] if fmt == "json" else found
    assert [row["fingerprint"] for row in rows] == [OTHER_DIGEST, DIGEST]
    assert [int(row["evaluations"]) for row in rows] == [2, 5]
    lowest = min(evaluation(5).value, evaluation(7).value)
    assert [float(row["best"]) for row in rows] == [lowest, max(evaluation(number).value for number in range(5))]
    if fmt == "json":
        assert [row["description"] for row in rows] == [OTHER, FINGERPRINT]


@pytest.mark.parametrize("command", ["stats", "list"])
def test_a_cache_in_memory_is_empty(command: str, here: Path) -> None:
    code, out, err = run("cache", command, "--cache", "none")
    assert (code, err) == (0, "")
    assert out.startswith("0 ")


def test_export_and_import_give_the_same(filled: Path) -> None:
    assert run("cache", "export", "all.jsonl", "--cache", URL) == (0, "", "evaluations exported to all.jsonl: 7\n")
    lines = Path("all.jsonl").read_text("utf-8")
    assert run("cache", "export", "-", "--cache", URL) == (0, lines, "")
    assert run("cache", "import", "all.jsonl", "--cache", "sqlite:///b.db") == (
        0,
        "evaluations added: 7, there already: 0\n",
        "",
    )
    with open_store(URL) as one, open_store("sqlite:///b.db") as other:
        before, after = list(one.records()), list(other.records())
        assert [r.key for r in before] == [r.key for r in after]
        assert [(r.fingerprint, r.metric, r.created) for r in before] == [
            (r.fingerprint, r.metric, r.created) for r in after
        ]
        assert all(same(r.evaluation, s.evaluation) for r, s in zip(before, after, strict=True))
    assert run("cache", "export", "-", "--cache", "sqlite:///b.db").out == lines


def test_import_leaves_existing_keys_alone(filled: Path) -> None:
    changed = [json.loads(line) for line in run("cache", "export", "-", "--cache", URL).out.splitlines()[:3]]
    changed[0]["seconds"] = 1e6
    changed[1]["fingerprint"]["weights"] = "w2"
    changed[2]["created"] = "2030-01-01T00:00:00+02:00"
    write(Path("more.jsonl"), "\n\n".join(map(json.dumps, changed)) + "\n")
    assert run("cache", "import", "more.jsonl", "--cache", URL).out == "evaluations added: 1, there already: 2\n"
    with open_store(URL) as store:
        kept = store.get(*record(0).key)
        assert kept is not None
        assert same(kept, evaluation(0))
        assert store.stats().evaluations == 8
    assert run("cache", "import", "more.jsonl", "--cache", "sqlite:///b.db").code == 0
    with open_store("sqlite:///b.db") as store:
        assert "2029-12-31T22:00:00+00:00" in [found.created for found in store.records()]


def _set(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda data: json.dumps({**data, **changes})


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda data: "{", "text that is no JSON"),
        (lambda data: DEEP, "text that is no JSON"),
        (lambda data: LONG, "text that is no JSON"),
        (lambda data: "[]", "JSON that is no object"),
        (lambda data: "3", "JSON that is no object"),
        (lambda data: "{}", "an object with 'created' missing or unknown"),
        (_set(more=1), "an object with 'more' missing or unknown"),
        (_set(schema_version=2), "schema_version 2, known: 1"),
        (_set(fingerprint="x"), "a fingerprint that is no object of texts"),
        (_set(fingerprint={"n": 1}), "a fingerprint that is no object of texts"),
        (_set(metric={}), "a metric without exactly name, unit, higher_is_better, scale"),
        (_set(metric=None), "a metric without exactly name, unit, higher_is_better, scale"),
        (
            _set(metric={"name": "a", "unit": "b", "higher_is_better": 1, "scale": 1}),
            "a metric with a value of another type",
        ),
        (
            _set(metric={"name": "a", "unit": "b", "higher_is_better": True, "scale": float("nan")}),
            "a metric with a value of another type",
        ),
        (_set(scheme=None), "a scheme that is no object"),
        (_set(scheme={"default": "w99"}), "a scheme: default: unknown precision 'w99': known: "),
        (_set(scheme={"layers": []}), "a scheme: unknown key 'layers': known: version, default, rules"),
        (_set(scheme={"version": 1, "default": "w4", "rules": []}), "a scheme that is not in canonical form"),
        (_set(value=None), "value None, which is no finite number"),
        (_set(value=float("nan")), "value nan, which is no finite number"),
        (_set(value=0.123), "value 0.123 with outcomes whose mean is "),
        (_set(stderr=-1), "stderr -1, which is below 0"),
        (_set(n=400), "outcomes that are not 400 of kind bool"),
        (_set(n="x"), "outcomes that are not x of kind bool"),
        (_set(outcomes="€"), "outcomes that are no base64 text"),
        (_set(outcomes="A"), "outcomes that are no base64 text"),
        (_set(outcomes=3), "outcomes that are no base64 text"),
        (_set(outcomes=None), "outcomes that are not 300 of kind bool"),
        (_set(outcome_kind="int8"), "outcomes that are not 300 of kind int8"),
        (_set(outcome_kind=["bool"]), "outcomes that are not 300 of kind ['bool']"),
        (_set(seconds="1"), "seconds '1', which is no finite number"),
        (_set(created="yesterday"), "created 'yesterday', which is no time with its zone"),
        (_set(created="2025-01-01T00:00:00"), "created '2025-01-01T00:00:00', which is no time with its zone"),
        (_set(created="0001-01-01T00:00:00+14:00"), "created '0001-01-01T00:00:00+14:00', which is no time with its"),
        (_set(created=5), "created 5, which is no time with its zone"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_imported(
    spoil: Callable[[dict[str, Any]], str], text: str, filled: Path
) -> None:
    lines = run("cache", "export", "-", "--cache", URL).out.splitlines()
    data = [json.loads(line) for line in lines]
    for each in data:
        each["fingerprint"]["weights"] = "new"
    bad = [json.dumps(data[0]), json.dumps(data[1]), spoil(data[2]), "neither", json.dumps(data[3])]
    write(Path("bad.jsonl"), "\n".join(bad))
    sentence = refusal("cache", "import", "bad.jsonl", "--cache", URL)
    assert sentence.startswith(f"bad.jsonl: line 3: {text}")
    assert sentence.endswith(": nothing was imported. Next: mend or remove that line.")
    assert held() == 7


def test_a_file_that_is_no_text(filled: Path) -> None:
    write(Path("bad.jsonl"), GARBAGE)
    assert refusal("cache", "import", "bad.jsonl", "--cache", URL).startswith("bad.jsonl: line 1: text that is no JSON")


def test_a_line_of_another_metric(filled: Path) -> None:
    data = json.loads(run("cache", "export", "-", "--cache", URL).out.splitlines()[0])
    data["metric"]["name"] = "loss"
    write(Path("bad.jsonl"), json.dumps(data))
    assert f"it has fingerprint {DIGEST[:12]} with metric " in refusal("cache", "import", "bad.jsonl", "--cache", URL)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("import", "no.jsonl"), "cannot read 'no.jsonl': No such file or directory. Next: check the path."),
        (("import", "."), "cannot read '.': Is a directory. Next: check the path."),
        (("export", "a.db"), "cannot write 'a.db': known suffixes: .jsonl. Next: choose one of these."),
        (("export", "no/a.jsonl"), "cannot write 'no/a.jsonl': No such file or directory. Next: choose a folder that"),
        (("export", "full.jsonl"), "cannot write 'full.jsonl': No space left on device; what is there is incomplete."),
        (("stats", "--format", "xml"), "unknown format 'xml': known: table, json, csv, md. Next: choose one."),
        (("stats", "--cache", "a.db"), "unknown cache 'a.db': known: sqlite:///relative.db, sqlite:////abs/path.db, "),
        (("stats", "--cache", "sqlite:///no.db"), "no evaluation cache 'no.db'. Next: run a search, which makes it, "),
        (("prune",), "say in exactly one way what to remove. Next: give --older-than, --fingerprint or --all."),
        (("prune", "--all", "--older-than", "1"), "say in exactly one way what to remove. Next: give --older-than, "),
        (("prune", "--older-than", "-1"), "an age of -1.0 days is out of range. Next: give a number of days, at leas"),
        (("prune", "--older-than", "nan"), "an age of nan days is out of range. Next: give a number of days, at leas"),
        (("prune", "--older-than", "inf"), "an age of inf days is out of range. Next: give a number of days, at leas"),
        (("prune", "--older-than", "1e9"), "an age of 1000000000.0 days is out of range. Next: give a number of days"),
        (("prune", "--fingerprint", "xyz"), "fingerprint 'xyz' starts none of the 2 oracles in 'a.db'. Next: run 'ai"),
        (("prune", "--fingerprint", ""), "fingerprint '' starts 2 of the 2 oracles in 'a.db'. Next: run 'aiq cache l"),
    ],
)
def test_refusals(arguments: tuple[str, ...], sentence: str, filled: Path) -> None:
    if "full.jsonl" in arguments:
        if not Path("/dev/full").exists():
            pytest.skip("no device here is always full")
        Path("full.jsonl").symlink_to("/dev/full")
    before = filled.read_bytes()
    cache = () if "--cache" in arguments else ("--cache", URL)
    assert refusal("cache", *arguments, *cache).startswith(sentence)
    assert filled.read_bytes() == before
    assert held() == 7


@pytest.mark.parametrize(
    ("arguments", "removed", "oracles"),
    [
        (("--all",), 7, []),
        (("--fingerprint", DIGEST[:8]), 5, [OTHER_DIGEST]),
        (("--fingerprint", OTHER_DIGEST.upper()), 2, [DIGEST]),
        (("--older-than", "0"), 7, []),
        (("--older-than", "36500"), 0, [OTHER_DIGEST, DIGEST]),
    ],
)
def test_prune(arguments: tuple[str, ...], removed: int, oracles: list[str], filled: Path) -> None:
    left = 7 - removed
    assert run("cache", "prune", *arguments, "--cache", URL) == (
        0,
        f"evaluations removed: {removed}, left: {left}\n",
        "",
    )
    assert [row["fingerprint"] for row in read("list", "json")["oracles"]] == oracles


def test_prune_by_age_and_size(here: Path) -> None:
    now = datetime.now(UTC)
    with open_store(URL) as store:
        for number in range(100):
            moment = now - timedelta(days=number % 10, hours=12)
            store.put(record(number, created=moment.isoformat(timespec="seconds")))
    before = Path("a.db").stat().st_size
    assert run("cache", "prune", "--older-than", "3", "--cache", URL).out == "evaluations removed: 70, left: 30\n"
    assert Path("a.db").stat().st_size < before / 2
    assert not Path("a.db-wal").exists()


def test_the_users_own_cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIQ_CACHE_DIR", "own")
    assert refusal("cache", "stats").startswith("no evaluation cache 'own/evaluations.sqlite3'. Next: run a search")
    with open_store("sqlite:///a.db") as store:
        store.put(record(0))
    run("cache", "export", "a.jsonl", "--cache", "sqlite:///a.db")
    assert run("cache", "import", "a.jsonl").out == "evaluations added: 1, there already: 0\n"
    assert run("cache", "stats").out.startswith("1 evaluation of 1 oracle, which took ")
    assert Path("own/evaluations.sqlite3").exists()


def test_a_damaged_cache_is_one_sentence(filled: Path) -> None:
    filled.write_bytes(filled.read_bytes()[:5000])
    for command in (("stats",), ("list",), ("export", "-"), ("export", "x.jsonl"), ("prune", "--all")):
        assert refusal("cache", *command, "--cache", URL).startswith(
            "cannot open evaluation cache 'a.db': it is damaged"
        )
    assert filled.stat().st_size == 5000


def test_import_is_one_transaction_for_other_readers(filled: Path) -> None:
    run("cache", "export", "a.jsonl", "--cache", URL)
    code = "import sys; from aiq.cache import open_store; print(open_store(sys.argv[1]).stats().evaluations)"
    with open_store("sqlite:///b.db") as store, store._transaction():
        for found in open_store(URL).records():
            store._insert(found)
        done = subprocess.run(
            [sys.executable, "-c", code, "sqlite:///b.db"], capture_output=True, text=True, check=True
        )
        assert done.stdout == "0\n"
    with open_store("sqlite:///b.db") as store:
        assert import_evaluations(store, "a.jsonl") == (0, 7)


def test_the_help_of_each_command() -> None:
    for command in ((), ("stats",), ("list",), ("export",), ("import",), ("prune",)):
        code, out, err = run("cache", *command, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: aiq {' '.join(('cache', *command))} ")
    assert run("cache").code == 2


def test_as_a_program(filled: Path) -> None:
    done = subprocess_run(["cache", "list", "--cache", URL], COLUMNS="40")
    assert (done.returncode, done.stderr) == (0, "")
    assert DIGEST[:12] in done.stdout
