"""The notes, one Markdown file per paper, and the readers of what we know."""
