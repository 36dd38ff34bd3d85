"""What is measured and kept as data: the atlas, for the templates that show it."""

from __future__ import annotations

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the templates the atlas."""
    path = Path(config.docs_dir, "data", "atlas.json")
    try:
        config.extra["atlas"] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise PluginError(
            f"docs/data/atlas.json: {error}; write it with: python -m snippets atlas"
        ) from None
    return config
