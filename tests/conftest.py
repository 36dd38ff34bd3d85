"""What all tests share."""

import hypothesis
import pytest
import torch

# Tests say what they prove, for the site.
pytest_plugins = ["tests.trust"]

# A failing check of the shared classes shows its values, too.
pytest.register_assert_rewrite("tests.losses", "tests.masked", "tests.selection")

# Examples are drawn alike on every machine, and no slow one is flaky.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("steady")


@pytest.fixture(autouse=True)
def one_thread():
    """Tests run side by side, each on one core."""
    torch.set_num_threads(1)
