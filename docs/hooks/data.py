"""What is computed and kept as data, for the templates: the atlas, the study, the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the templates what the commands of these names have written."""
    for name in ("atlas", "study"):
        path = Path(config.docs_dir, "data", f"{name}.json")
        try:
            config.extra[name] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise PluginError(
                f"docs/data/{name}.json: {error}; write it with: python -m snippets {name}"
            ) from None
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
