"""Where the examples are trained."""

import pytest

from tests.examples.projects import home


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """The folder in which an example is trained."""
    base = tmp_path_factory.mktemp("projects")
    return lambda example: home(example, base)
