"""The main job in one run: plan a trained network on a machine, draw what bounds it, search the best scheme.

``digits_cnn`` (weights in the package) on a 2-vCPU Xeon and a T4; figures, tables and evaluations go to ``out/demo``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OUT = Path("out/demo")
AIQ = str(Path(sys.executable).with_name("aiq"))


def run(*arguments: str, save_as: str | None = None) -> None:
    """Show a command, run it, and stop the demo if it fails."""
    print(f"\n$ aiq {' '.join(arguments)}", flush=True)
    done = subprocess.run([AIQ, *arguments], check=False, stdout=subprocess.PIPE if save_as else None, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    if save_as:
        (OUT / save_as).write_text(done.stdout, "utf-8")
        print(f"  written to {OUT / save_as}")


def main() -> None:
    """Plan, draw, search, and keep the JSON."""
    OUT.mkdir(parents=True, exist_ok=True)
    run("plan", "digits_cnn", "--hardware", "xeon-2vcpu")
    figure = str(OUT / "digits_cnn_xeon.png")
    run("roofline", "digits_cnn", "--hardware", "xeon-2vcpu", "--scheme", "w8a8", "--plot", figure)
    run("plan", "digits_cnn", "--hardware", "xeon-2vcpu", "--format", "json", save_as="digits_cnn_xeon.json")
    figure = str(OUT / "resnet20_t4.png")
    run("roofline", "resnet20", "--hardware", "t4", "--batch", "128", "--scheme", "w8", "--plot", figure, "--format",
        "md", save_as="resnet20_t4.md")  # fmt: skip
    figure, cache = str(OUT / "digits_cnn_frontier.png"), f"sqlite:///{OUT / 'evaluations.sqlite3'}"
    formats = ("--formats", "w8a8,w4a8,w3a4,w2a4", "--traffic", "paper")
    run("search", "digits_cnn", *formats, "--max-drop", "0.5", "--frontier", "--plot", figure, "--cache", cache)
    print(f"\nfigures: {OUT}/digits_cnn_xeon.png, {OUT}/resnet20_t4.png, {OUT}/digits_cnn_frontier.png")


if __name__ == "__main__":
    main()
