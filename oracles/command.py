"""An external program as an oracle: ``command:PROGRAM ARGUMENTS``, so that any stack can measure schemes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from aiq.digest import file_digest
from aiq.oracle import OracleContext, OracleError
from oracles._answers import Answering, context_fingerprint, layer_formats
from oracles._outputs import scheme_label
from roofline import Scheme
from roofline.errors import InputError

QUESTION_VERSION = 1
_LONGEST_LINE = 200


def command(argument: str, context: OracleContext) -> Answering:
    """Return the oracle of a program that reads a scheme on stdin and writes one JSON object on stdout.

    It is run once for each scheme, without a shell, in the working directory. On stdin: ``{"version": 1, "model":
    NAME, "layers": {LAYER: FORMAT}, "data": TEXT or null, "split": NAME, "limit": N or null, "seed": N}`` with formats
    as in ``keep``, ``int8/keep``, ``int4:g128/bf16``. On stdout: at least ``{"value": 0.91}``, and what else
    :class:`oracles._answers.Answering` lists. Logs belong on stderr. With a timeout the whole process group is killed
    when it has passed.

    The fingerprint covers the command line, the content of each argument that is a file, and the model's weights. It
    cannot see what else the program depends on (files that it imports or reads, data, versions): add an argument that
    you change, for instance ``--version 2``, when any of these changes, or cached values go on being used.

    Args:
        argument: The command line, in shell quoting.
        context: The model whose layers the schemes speak of; ``timeout_s`` is kept here.

    Raises:
        InputError: No command is given, or its quotes do not match.
    """
    try:
        words = shlex.split(argument)
    except ValueError as error:
        raise InputError(f"command {argument!r} cannot be split into words: {error}. Next: close the quotes.") from None
    if not words:
        raise InputError("the oracle command needs a command line. Next: write for instance command:'python score.py'.")
    source = f"command {argument!r}"

    def ask(scheme: Scheme) -> Mapping[str, Any]:
        question = {
            "version": QUESTION_VERSION,
            "model": context.model.name,
            "layers": layer_formats(scheme, context),
            "data": context.data,
            "split": context.split,
            "limit": context.limit,
            "seed": context.seed,
        }
        where = f"{source}, on {scheme_label(scheme)},"
        return _parsed(_run(words, json.dumps(question), context.timeout_s, where), where)

    def describe() -> Mapping[str, str]:
        files = {word: file_digest(word) for word in words if os.path.isfile(word)}
        return {
            "oracle": "command",
            "command": json.dumps(words),
            "files": json.dumps(files, sort_keys=True),
            **context_fingerprint(context),
        }

    return Answering(source, ask, describe, context.graph, keeps_timeout=True)


def _run(words: Sequence[str], question: str, timeout_s: float | None, where: str) -> bytes:
    # Files, not pipes: a program that does not read, writes much, or leaves children behind cannot block us.
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(question.encode())
        stdin.seek(0)
        try:
            process = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
        except OSError as error:
            raise OracleError(f"{where} cannot be run: {error.strerror}. Next: check that it is installed.") from None
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise OracleError(
                f"{where} took longer than {timeout_s:g} s and was killed{_last_words(stderr)}. "
                "Next: raise the timeout, or see why it hangs."
            ) from None
        except BaseException:
            _kill(process)
            raise
        if code:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
            raise OracleError(f"{where} {how}{_last_words(stderr)}. Next: run it by itself.")
        answer = _content(stdout)
        if not answer.strip():
            raise OracleError(
                f"{where} wrote nothing on stdout{_last_words(stderr)}. Next: write one JSON object with a value there."
            )
        return answer


def _kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _last_words(stderr: BinaryIO) -> str:
    lines = [line.strip() for line in _content(stderr).decode("utf-8", "replace").splitlines() if line.strip()]
    return f", saying {_cut(lines[-1]).rstrip('.')!r}" if lines else ""


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}..."


def _parsed(answer: bytes, where: str) -> Mapping[str, Any]:
    text = answer.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise OracleError(
            f"{where} wrote {_cut(text.splitlines()[0])!r}, not one JSON object, on stdout. "
            "Next: write logs to stderr, and only the answer to stdout."
        )
    return found
