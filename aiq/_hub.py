"""Find a configuration in the local cache of the Hugging Face hub; nothing is fetched."""

from __future__ import annotations

import os
import re
from pathlib import Path

from roofline.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_REVISION = re.compile(r"[0-9a-f]{7,64}")


def cached_config(name: str) -> Path:
    """Return the ``config.json`` of a model in the cache: of its main revision, else of any.

    Raises:
        InputError: The name is that of neither a folder, a file nor a model in the cache.
    """
    hub = _hub()
    if _NAME.fullmatch(name) and not name.endswith(".json"):
        folder = hub / f"models--{name.replace('/', '--')}"
        revisions = [_main(folder), *sorted(path.name for path in folder.glob("snapshots/*"))]
        for revision in revisions:
            found = folder / "snapshots" / revision / "config.json"
            if revision and found.is_file():
                return found
    raise InputError(
        f"model 'hf:{name}': no such folder or file, and no model of that name in {hub}; nothing is fetched from the "
        "network. Next: give hf:FOLDER with a config.json in it."
    )


def _hub() -> Path:
    environment = os.environ
    if hub := environment.get("HF_HUB_CACHE"):
        return Path(hub)
    home = environment.get("HF_HOME")
    base = Path(home) if home else Path(environment.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return base.expanduser() / "hub"


def _main(folder: Path) -> str:
    try:
        text = (folder / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if _REVISION.fullmatch(text) else ""
