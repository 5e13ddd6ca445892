"""The main job in one run: plan a trained network on a machine, and draw what bounds it.

``digits_cnn`` (weights in the package) on a 2-vCPU Xeon and a T4; figures and tables go to ``out/demo``.
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
    """Plan, draw, and keep the JSON."""
    OUT.mkdir(parents=True, exist_ok=True)
    run("plan", "digits_cnn", "--hardware", "xeon-2vcpu")
    figure = str(OUT / "digits_cnn_xeon.png")
    run("roofline", "digits_cnn", "--hardware", "xeon-2vcpu", "--scheme", "w8a8", "--plot", figure)
    run("plan", "digits_cnn", "--hardware", "xeon-2vcpu", "--format", "json", save_as="digits_cnn_xeon.json")
    figure = str(OUT / "resnet20_t4.png")
    run("roofline", "resnet20", "--hardware", "t4", "--batch", "128", "--scheme", "w8", "--plot", figure, "--format",
        "md", save_as="resnet20_t4.md")  # fmt: skip
    print(f"\nfigures: {OUT}/digits_cnn_xeon.png, {OUT}/resnet20_t4.png")


if __name__ == "__main__":
    main()
