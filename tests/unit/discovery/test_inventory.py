"""Kept up to date change by change, the inventory says what a look at everything would say."""

from collections.abc import Callable, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.discovery.inventory import Inventory, Judged
from dynamic_toolset.kube.objects import ObjectMeta, Service
from dynamic_toolset.model import Outcome, ServiceKey
from dynamic_toolset.settings import Policy, Settings
from tests.unit.discovery.building import catalog, headless, service

DETECTOR = Detector(catalog(), Settings())
DETECTORS = (
    DETECTOR,
    Detector(catalog(), Settings(policy=Policy(max_per_namespace=2))),
    Detector(catalog(), Settings(policy=Policy(max_in_all=2))),
    Detector(catalog(), Settings(policy=Policy(max_per_namespace=2, max_in_all=3))),
)

# What a Service of any name can be: of one workload, so that twins come and go; of another; or nothing at all.
PROMETHEUS = {"own": ".name=prometheus", "pods": "app=prometheus", "listens": "http:9090"}
SHAPES = (
    lambda key: service(key.name, **PROMETHEUS, namespace=key.namespace),
    lambda key: headless(key.name, **PROMETHEUS, namespace=key.namespace),
    lambda key: service(key.name, **PROMETHEUS, namespace=key.namespace, annotations={"": "enabled"}),
    lambda key: service(key.name, **PROMETHEUS, namespace=key.namespace, annotations={"": "disabled"}),
    lambda key: service(key.name, **PROMETHEUS, namespace=key.namespace, annotations={"-port": "none"}),
    lambda key: service(key.name, ".name=grafana", "http:3000", "app=grafana", namespace=key.namespace),
    lambda key: service(key.name, namespace=key.namespace),
)
keys = st.builds(
    ServiceKey, st.sampled_from(["shop", "web", "ops"]), st.sampled_from(["a", "b", "c", "d"]), st.just("")
)
made = st.tuples(st.sampled_from(SHAPES), st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"]))
changes = st.tuples(keys, st.one_of(st.none(), made))


def shaped(key: ServiceKey, how: tuple[Callable[[ServiceKey], Service], str] | None) -> Service | None:
    if how is None:
        return None
    shape, created = how
    one = shape(key)
    return msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, creation_timestamp=created))


class Followed:
    """An inventory, and the Services as they are: what the reflector does between the API and the inventory."""

    def __init__(self, detector: Detector = DETECTOR) -> None:
        self.inventory = Inventory(detector)
        self.services: dict[ServiceKey, Service] = {}

    def take(self, *changes: tuple[ServiceKey, Service | None]) -> None:
        changed: dict[ServiceKey, Judged | None] = {}
        for key, one in changes:
            changed[key] = None if one is None else self.inventory.judge(one)
            if one is None:
                self.services.pop(key, None)
            else:
                self.services[key] = one
        self.inventory.update(changed)


@given(st.lists(st.lists(changes, max_size=6), max_size=6), st.sampled_from(DETECTORS))
@settings(max_examples=300)
def test_any_changes_in_any_batches_give_what_one_look_at_everything_gives(
    batches: list[list[tuple[ServiceKey, tuple[Callable[[ServiceKey], Service], str] | None]]], detector: Detector
) -> None:
    followed = Followed(detector)
    for batch in batches:
        followed.take(*((key, shaped(key, how)) for key, how in batch))
        expected = detector.discover(followed.services.values())
        assert followed.inventory.decisions == expected
        assert list(followed.inventory.candidates.items()) == [
            (key, decision.candidate)
            for key, decision in sorted(expected.items())
            if decision.outcome is Outcome.CANDIDATE
        ]


def test_of_what_is_gone_nothing_is_kept() -> None:
    followed = Followed(DETECTORS[3])
    for number in range(50):
        keys = [ServiceKey(f"shop-{number}", name) for name in "abc"]
        followed.take(*((key, SHAPES[(number + place) % len(SHAPES)](key)) for place, key in enumerate(keys)))
        followed.take(*((key, None) for key in keys))
    kept = [value for value in vars(followed.inventory).values() if isinstance(value, Mapping)]
    assert len(kept) >= 6
    assert not any(kept)


def test_a_duplicate_takes_the_place_of_the_one_that_is_deleted() -> None:
    followed = Followed()
    first, twin = ServiceKey("shop", "a"), ServiceKey("shop", "a-headless")
    followed.take((first, SHAPES[0](first)), (twin, SHAPES[1](twin)))
    assert list(followed.inventory.candidates) == [first]
    assert followed.inventory.decisions[twin].outcome is Outcome.DUPLICATE
    followed.take((first, None))
    assert list(followed.inventory.candidates) == [twin]


def test_what_was_handed_out_does_not_change_afterwards() -> None:
    followed = Followed()
    key = ServiceKey("shop", "a")
    followed.take((key, SHAPES[0](key)))
    decisions, candidates = followed.inventory.decisions, followed.inventory.candidates
    followed.take((key, None))
    assert list(decisions) == list(candidates) == [key]
    assert not followed.inventory.decisions


@pytest.mark.parametrize(
    ("annotations", "outcome", "uid"),
    [
        pytest.param({}, Outcome.IGNORED, "", id="no backend"),
        pytest.param({"": "disabled", "-type": "prometheus"}, Outcome.IGNORED, "", id="opted out"),
        pytest.param({"": "perhaps"}, Outcome.REJECTED, "1-2", id="broken annotation"),
    ],
)
def test_of_what_is_no_candidate_only_what_an_event_on_it_needs_is_kept(
    annotations: dict[str, str], outcome: Outcome, uid: str
) -> None:
    one = service("a", "team=secret", "http:80", "app=secret", annotations=annotations)
    one = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, uid="1-2", resource_version="7"))
    judged = Inventory(DETECTOR).judge(one)
    assert judged.decision.outcome is outcome
    assert judged.entrance is None
    assert judged.metadata == ObjectMeta("a", "shop", uid, "7")


def test_of_a_candidate_no_annotations_are_kept() -> None:
    one = service("a", **PROMETHEUS)
    metadata = msgspec.structs.replace(
        one.metadata, creation_timestamp="2026-01-01T00:00:00Z", annotations={"notes": "x" * 1000}
    )
    judged = Inventory(DETECTOR).judge(msgspec.structs.replace(one, metadata=metadata))
    assert judged.metadata == ObjectMeta("a", "shop")
    assert judged.entrance is not None
    assert judged.entrance.created == "2026-01-01T00:00:00Z"
    assert b"xxx" not in msgspec.msgpack.encode(judged)
