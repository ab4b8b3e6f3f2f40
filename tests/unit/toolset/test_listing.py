"""Which candidates are in the toolset: a table."""

import pytest
from msgspec.structs import replace

from dynamic_toolset.model import UNCHECKED, Health, Verdict
from dynamic_toolset.settings import Credential, HealthCheckSettings, Settings, ToolsetSettings
from dynamic_toolset.toolset.listing import is_listed
from tests.unit.toolset.samples import candidate

ONE = candidate("grafana", "monitoring", "grafana")
PUBLISHED = frozenset({(ONE.key, ONE.type)})
AS_ANOTHER_TYPE = frozenset({(ONE.key, "loki")})
SETTINGS = Settings(health_check=HealthCheckSettings(failure_threshold=3))
WITH_CREDENTIALS = replace(
    SETTINGS,
    toolset=ToolsetSettings(credentials=(Credential(namespace="monitoring", service="grafana", api_key="KEY"),)),
)

HEALTHY = Health(Verdict.HEALTHY, "answers")


def failed(times: int, **more: bool) -> Health:
    return Health(Verdict.UNHEALTHY, "HTTP 503", failures=times, **more)


@pytest.mark.parametrize(
    ("health", "published", "held", "listed"),
    [
        pytest.param(HEALTHY, frozenset(), (), True, id="one good check suffices"),
        pytest.param(UNCHECKED, PUBLISHED, (), True, id="not known yet: as it was published"),
        pytest.param(UNCHECKED, frozenset(), (), False, id="not known yet, and new"),
        pytest.param(UNCHECKED, AS_ANOTHER_TYPE, (), False, id="published as another type is not published"),
        pytest.param(failed(1), PUBLISHED, (), True, id="one failed check"),
        pytest.param(failed(2), PUBLISHED, (), True, id="two failed checks"),
        pytest.param(failed(3), PUBLISHED, (), False, id="three failed checks in a row"),
        pytest.param(failed(1), frozenset(), (), False, id="a new one that fails"),
        pytest.param(failed(99), PUBLISHED, (ONE.key,), True, id="its removal is held"),
        pytest.param(failed(99), frozenset(), (ONE.key,), False, id="nothing is held that was not published"),
        pytest.param(failed(1, needs_credentials=True), frozenset(), (), False, id="it asks for credentials"),
        pytest.param(failed(1, refused=True), PUBLISHED, (ONE.key,), False, id="refused: at once, whatever is held"),
    ],
)
def test_what_is_listed(health: Health, published: frozenset, held: tuple, listed: bool) -> None:
    assert is_listed(ONE, health, SETTINGS, published, held) is listed


def test_what_asks_for_credentials_is_listed_as_long_as_the_agent_has_some() -> None:
    assert is_listed(ONE, failed(99, needs_credentials=True), WITH_CREDENTIALS)
    assert not is_listed(ONE, failed(99), WITH_CREDENTIALS, PUBLISHED)
