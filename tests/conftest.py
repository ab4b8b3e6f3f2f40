"""What holds for every test: what happens when a part of a test tier is not on this machine."""

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.cluster.cache import Missing

# Time is no property of the code under test here, nor of what makes the examples, and the machine is shared: it may
# stand still for longer than Hypothesis grants to the first ten of them.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _skip_what_is_missing())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _skip_what_is_missing())


def _skip_what_is_missing() -> Generator[None, object, object]:
    """Skip a test whose parts cannot be had, with the line that says how to get them; in CI it is an error."""
    try:
        return (yield)
    except Missing as missing:
        if os.environ.get("CI", "").lower() in ("", "0", "false"):
            pytest.skip(str(missing))
        raise
