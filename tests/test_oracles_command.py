"""An external program as an oracle: what it is told, what it may answer, and every way that it can go wrong."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aiq.oracle import Metric, OracleError
from aiq.testing import check_oracle
from oracles._answers import Answering
from oracles.command import command
from roofline import Scheme
from roofline.errors import InputError
from tests.evaluating import context, digits

W4 = Scheme.parse("w4")


def program(folder: Path, source: str) -> str:
    """Return the command line of a Python program."""
    path = folder / "score.py"
    path.write_text(source)
    return f"{shlex.quote(sys.executable)} -S {shlex.quote(str(path))}"


def shell(script: str) -> str:
    return f"sh -c {shlex.quote(script)}"


def oracle(line: str, timeout_s: float | None = None) -> Answering:
    return command(line, context(timeout_s=timeout_s))


def refusal(line: str, scheme: Scheme = W4, timeout_s: float | None = None) -> str:
    with pytest.raises(OracleError) as caught:
        oracle(line, timeout_s).evaluate(scheme)
    return str(caught.value)


SCORE = """
import json, sys
asked = json.load(sys.stdin)
bits = {"keep": 32, "int8/keep": 8, "int4/keep": 4}
right = [bits[f] >= 8 for f in asked["layers"].values()]
print("measuring", file=sys.stderr)
json.dump({"value": sum(right) / len(right), "outcomes": [int(r) for r in right], "metric": "accuracy"}, sys.stdout)
"""


def test_a_program_that_scores_schemes(tmp_path: Path) -> None:
    layers = digits()[1].layers
    measured = oracle(program(tmp_path, SCORE))
    found = measured.evaluate(Scheme.parse(f"w8,{layers[0]}=w4"))
    share = 1 - 1 / len(layers)
    assert found.value == pytest.approx(share)
    assert found.n == len(layers)
    assert found.outcomes is not None
    assert found.outcomes.dtype == bool
    assert found.outcomes.tolist() == [False, *[True] * (len(layers) - 1)]
    assert found.stderr == pytest.approx((share * (1 - share) / len(layers)) ** 0.5)
    assert measured.metric == Metric("accuracy", "points", higher_is_better=True, scale=100.0)
    check_oracle(command, program(tmp_path, SCORE), schemes=[Scheme.parse("w8"), W4])


def test_what_a_program_is_told(tmp_path: Path) -> None:
    copy = tmp_path / "asked.json"
    line = shell(f"cat > {shlex.quote(str(copy))}; echo '{{\"value\": 1}}'")
    given = context(data="digits", split="report", limit=7, seed=3)
    first = given.graph.layers[0]
    command(line, given).evaluate(Scheme.parse(f"w4:g128,{first}=int8/bf16"))
    asked = json.loads(copy.read_text())
    assert {key: asked[key] for key in asked if key != "layers"} == {
        **{"version": 1, "model": "digits_cnn", "data": "digits", "split": "report", "limit": 7, "seed": 3}
    }
    assert list(asked["layers"]) == list(given.graph.layers)
    assert asked["layers"][first] == "int8/bf16"
    assert set(asked["layers"].values()) == {"int8/bf16", "int4:g128/keep", "keep"}


def test_the_metric_is_known_before_the_first_scheme(tmp_path: Path) -> None:
    count = tmp_path / "count"
    answer = '{"value": 3, "metric": "mean error", "unit": "mm", "higher_is_better": false}'
    measured = oracle(shell(f"echo x >> {shlex.quote(str(count))}; echo '{answer}'"))
    assert measured.metric == Metric("mean error", "mm", higher_is_better=False)
    names = digits()[1].layers
    assert measured.evaluate(Scheme.parse(",".join(["keep", *(f"{n}=keep" for n in names)]))).value == 3
    assert count.read_text() == "x\n"  # the float model is not run again
    measured.evaluate(W4)
    assert count.read_text() == "x\nx\n"


def test_numbers_of_every_kind() -> None:
    line = shell("""echo '{"value": 1.5, "stderr": 0.25, "n": 10, "divergence": 0.5, "outcomes": null}'""")
    found = oracle(line).evaluate(W4)
    assert (found.value, found.stderr, found.n, found.divergence, found.outcomes) == (1.5, 0.25, 10, 0.5, None)
    found = oracle(shell("""echo '{"value": 1.5, "outcomes": [1.0, 2.0]}'""")).evaluate(W4)
    assert found.outcomes is not None
    assert (found.outcomes.dtype, found.n, found.stderr) == (np.float32, 2, 0.5)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo one >&2; echo two. >&2; exit 3", "failed with exit code 3, saying 'two'. Next: run it by itself."),
        ("exit 1", "failed with exit code 1. Next: run it by itself."),
        ("kill -9 $$", "was killed by SIGKILL. Next: run it by itself."),
        (
            "echo no model >&2",
            "wrote nothing on stdout, saying 'no model'. Next: write one JSON object with a value there.",
        ),
        *(
            (
                f"echo {shlex.quote(text)}",
                f"wrote {text!r}, not one JSON object, on stdout. "
                "Next: write logs to stderr, and only the answer to stdout.",
            )
            for text in ("loading", "0.5", "[1]", '{"value": 1} done', '{"value": 1}{}')
        ),
        ("echo '{}'", "answered without a value. Next: answer at least {'value': NUMBER}."),
        *(
            (f"echo '{{\"value\": {text}}}'", f"answered value = {shown}, not a finite number. Next: mend it.")
            for text, shown in (
                *(("NaN", "nan"), ("-Infinity", "-inf"), ("1e999", "inf"), ("null", "None"), ('"0.5"', "'0.5'")),
                *(("[1, 2]", "[1, 2]"), ("9" * 400, f"{'9' * 57}...")),
            )
        ),
        (
            """echo '{"value": 1, "values": 2}'""",
            "answered with the key 'values': known: value, stderr, n, outcomes, divergence, metric, unit, "
            "higher_is_better. Next: drop it.",
        ),
        (
            """echo '{"value": 1, "stderr": -1}'""",
            "answered stderr = -1, not a finite number of at least 0. Next: mend it.",
        ),
        ("""echo '{"value": 1, "n": 1.5}'""", "answered n = 1.5, not a whole number. Next: mend it."),
        (
            """echo '{"value": 1, "n": 3, "outcomes": [1, 1]}'""",
            "answered n = 3, not the 2 of its outcomes. Next: mend it.",
        ),
        *(
            (
                f'echo \'{{"value": 1, "outcomes": {text}}}\'',
                "answered outcomes that are no list of finite numbers. Next: give one number for each example.",
            )
            for text in ("[]", "3", "[[1]]", "[1, NaN]", '["1"]', "[1, null]", "{}", "[" + "9" * 400 + "]")
        ),
        (
            """echo '{"value": 90, "outcomes": [1, 0]}'""",
            "answered value = 90 and outcomes whose mean is 0.5. Next: give outcomes whose mean is the value, or none.",
        ),
        ("""echo '{"value": 1, "metric": 3}'""", "answered metric = 3, not a text. Next: mend it."),
        (
            """echo '{"value": 1, "higher_is_better": "yes"}'""",
            "answered higher_is_better = 'yes', neither true nor false. Next: mend it.",
        ),
        (
            """echo '{"value": 91.5, "metric": "accuracy"}'""",
            "answered accuracy = 91.5: it is a fraction from 0 to 1. Next: divide percent by 100.",
        ),
    ],
)
def test_answers_that_are_none(script: str, message: str) -> None:
    line = shell(script)
    assert refusal(line) == f"command {line!r}, on 'w4', {message}"


def test_hostile_output() -> None:
    deep = f"{shlex.quote(sys.executable)} -S -c 'print(\"[\" * 100000)'"
    assert "not one JSON object" in refusal(deep)
    assert len(refusal(deep)) < 600
    assert "not one JSON object" in refusal(shell("printf '\\377\\376\\n'"))


def test_another_metric_than_before(tmp_path: Path) -> None:
    flag = shlex.quote(str(tmp_path / "flag"))
    line = shell(
        f"""m=loss; test -e {flag} && m=gain; touch {flag}; echo "{{\\"value\\": 1, \\"metric\\": \\"$m\\"}}" """
    )
    measured = oracle(line)
    measured.evaluate(W4)
    with pytest.raises(OracleError) as caught:
        measured.evaluate(Scheme.parse("w8"))
    assert str(caught.value) == (
        f"command {line!r} speaks of gain in gain on 'w8', of loss in loss before. "
        "Next: give one metric for all schemes."
    )


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    assert refusal("no_such_program_at_all --x") == (
        "command 'no_such_program_at_all --x', on 'w4', cannot be run: No such file or directory. "
        "Next: check that it is installed."
    )
    path = tmp_path / "plain.txt"
    path.write_text("")
    assert "cannot be run: Permission denied." in refusal(shlex.quote(str(path)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "the oracle command needs a command line. Next: write for instance command:'python score.py'."),
        ("python 'x", 'command "python \'x" cannot be split into words: No closing quotation. Next: close the quotes.'),
    ],
)
def test_command_lines_that_are_none(line: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        oracle(line)
    assert str(caught.value) == message


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has asked after does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    line = shell(f"echo started >&2; sleep 1000 & echo $! $$ > {shlex.quote(str(pids))}; wait")
    assert refusal(line, timeout_s=1.0) == (
        f"command {line!r}, on 'w4', took longer than 1 s and was killed, saying 'started'. "
        "Next: raise the timeout, or see why it hangs."
    )
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    for _ in range(1000):
        if not any(map(alive, left)):
            break
        time.sleep(0.01)
    assert not any(map(alive, left))


def test_ctrl_c_kills_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    wait = subprocess.Popen.wait

    def interrupted(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        started.append(process)
        if len(started) == 1:
            raise KeyboardInterrupt
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        oracle("sleep 1000").evaluate(W4)
    assert started[0].returncode == -signal.SIGKILL


def test_a_child_left_behind_does_not_block(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    line = shell(f"sleep 1000 & echo $! > {shlex.quote(str(pid))}; echo '{{\"value\": 1}}'")
    assert oracle(line, timeout_s=500.0).evaluate(W4).value == 1
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_fingerprint_covers_files_line_and_context(tmp_path: Path) -> None:
    line = program(tmp_path, SCORE)
    seen = [dict(oracle(line).fingerprint)]
    assert dict(oracle(line).fingerprint) == seen[0]
    program(tmp_path, SCORE + "\n# changed\n")
    seen.append(dict(oracle(line).fingerprint))
    assert [key for key in seen[0] if seen[0][key] != seen[1][key]] == ["files"]
    seen.append(dict(oracle(line + " --fast").fingerprint))
    assert [key for key in seen[1] if seen[1][key] != seen[2][key]] == ["command"]
    seen.append(dict(command(line, context(split="report", limit=5, seed=1, data="x")).fingerprint))
    assert [key for key in seen[1] if seen[1][key] != seen[3][key]] == ["data", "split", "limit", "seed"]
    assert "x" * 5000 in oracle("echo " + "x" * 5000).fingerprint["command"]
