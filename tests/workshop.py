"""A small copy of the project, for tests that break things."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# Script of the note [papers/KEY.md](../papers/KEY.md).
#
# # A paper

# %%
from snippets.lab.HELPER import constant

# %%
print(constant)
"""


@dataclass(frozen=True)
class Workshop:
    """A copy in which commands run as a user would run them."""

    root: Path

    def snippets(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m snippets …`."""
        return self.start(*arguments, run=subprocess.run)

    def start(self, *arguments, run=subprocess.Popen):
        """Start `python -m snippets …`; by default without waiting."""
        options = {"capture_output": True} if run is subprocess.run else {}
        return run(
            [sys.executable, "-m", "snippets", *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root)},
            text=True,
            **options,
        )

    def path(self, name: str) -> Path:
        """Locate a file of the copy."""
        return self.root / name

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a part of a file that must be there."""
        text = self.path(name).read_text()
        assert old in text, f"{name} has no {old!r}"
        self.path(name).write_text(text.replace(old, new))

    def notebook(self, key: str) -> Path:
        """Locate a notebook of the copy."""
        return self.path(f"docs/notebooks/{key}.ipynb")


def empty_workshop(root: Path) -> Workshop:
    """Copy the code, and no paper."""
    for package in ("papers", "snippets/lab"):
        shutil.copytree(
            ROOT / package,
            root / package,
            ignore=shutil.ignore_patterns("*.md", "__pycache__"),
        )
    for module in ("__init__.py", "__main__.py"):
        shutil.copy(ROOT / "snippets" / module, root / "snippets" / module)
    return Workshop(root)


def add_pair(workshop: Workshop, key: str, helper: str) -> None:
    """Add a note, and a script that prints a constant of `helper`."""
    note = (ROOT / "papers" / "hinton2015.md").read_text()
    note = note.replace("1503.02531", f"0000.{len(key):05}").replace("hinton2015", key)
    workshop.path(f"papers/{key}.md").write_text(note)
    script = SCRIPT.replace("KEY", key).replace("HELPER", helper)
    workshop.path(f"snippets/{key}.py").write_text(script)
    workshop.path(f"snippets/lab/{helper}.py").write_text("constant = 1\n")
