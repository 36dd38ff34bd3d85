"""What is computed and kept as data, for the templates: the atlas, the study, figures and more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

REQUIRED = ("atlas", "study")
"""Named as the commands that write them."""

OPTIONAL = ("bench", "mutants", "trust")
"""A page shows nothing of what is not there."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the templates each record by its name."""
    for name in (*REQUIRED, *OPTIONAL):
        path = Path(config.docs_dir, "data", f"{name}.json")
        if name in OPTIONAL and not path.is_file():
            continue
        try:
            config.extra[name] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            how = f"; write it with: python -m snippets {name}" if name in REQUIRED else ""
            raise PluginError(f"docs/data/{name}.json: {error}{how}") from None
    config.extra["figures"] = {
        path.stem: _figure(path) for path in Path(config.docs_dir, "figures").glob("*.json")
    }
    return config


def _figure(path: Path) -> dict[str, Any]:
    """Read a figure's title, caption and alternative text, and the width of its still picture."""
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
        return {"alt": spec["description"], **spec["usermeta"]}
    except (ValueError, KeyError) as error:
        raise PluginError(
            f"docs/figures/{path.name}: {error!r}; write it with: python -m snippets figures"
        ) from None
