"""One script per paper: its core loss in PyTorch, and its claims, tested."""
