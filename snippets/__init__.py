"""One script per paper: its core loss, and its claims, tested."""
