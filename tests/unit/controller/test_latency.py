"""From a Service's change to the publication that shows it: what counts, and what never does."""

from dynamic_toolset.controller.latency import MAX_PENDING, Latency
from dynamic_toolset.model import ServiceKey

A, B = ServiceKey("shop", "a"), ServiceKey("shop", "b")


def shown(*keys: ServiceKey, url: str = "http://x") -> dict[ServiceKey, tuple[str, str, str]]:
    return {key: ("orders", url, key.name) for key in keys}


def test_a_change_counts_from_its_arrival_to_the_publication_that_shows_it() -> None:
    latency = Latency()
    latency.arrived([A], 10.0)
    assert latency.settle(shown(A), (), published=True, now=10.5) == (0.5,)
    assert latency.settle(shown(A), (), published=True, now=20.0) == ()


def test_of_several_changes_before_the_publication_the_first_counts() -> None:
    latency = Latency()
    latency.arrived([A], 10.0)
    latency.arrived([A], 11.0)
    assert latency.settle(shown(A), (), published=True, now=12.0) == (2.0,)


def test_a_change_waits_for_its_verdict() -> None:
    latency = Latency()
    latency.arrived([A], 10.0)
    assert latency.settle({}, {A}, published=True, now=11.0) == ()
    assert latency.settle(shown(A), (), published=True, now=13.0) == (3.0,)


def test_a_change_that_could_not_be_published_waits_for_when_it_can() -> None:
    latency = Latency()
    latency.arrived([A], 10.0)
    assert latency.settle(shown(A), (), published=False, now=11.0) == ()
    assert latency.settle(shown(A), (), published=True, now=20.0) == (10.0,)


def test_a_change_that_nobody_will_see_is_forgotten() -> None:
    latency = Latency()
    latency.arrived([A], 10.0)
    assert latency.settle({}, (), published=True, now=11.0) == ()
    assert latency.settle(shown(A), (), published=True, now=500.0) == ()  # its backend was mended


def test_a_service_that_goes_or_moves_counts_too() -> None:
    latency = Latency()
    latency.forget(shown(A, B))
    latency.arrived([A, B], 10.0)
    now = shown(B, url="http://elsewhere")
    assert latency.settle(now, (), published=True, now=12.0) == (2.0, 2.0)


def test_what_another_instance_has_published_is_not_ours() -> None:
    latency = Latency()
    latency.arrived([A], 10.0)
    latency.forget(shown(A))
    assert latency.settle(shown(A, B), (), published=True, now=99.0) == ()


def test_what_the_cluster_already_shows_at_the_start_is_no_delay_of_the_next_publication() -> None:
    latency = Latency()
    latency.arrived([A], 10.0)
    latency.settle(shown(A), (), published=True, now=11.0)  # nothing had to be written: it is so
    latency.arrived([B], 3600.0)
    assert latency.settle(shown(A, B), (), published=True, now=3601.0) == (1.0,)


def test_what_is_followed_is_bounded() -> None:
    latency = Latency()
    keys = [ServiceKey("shop", str(number)) for number in range(MAX_PENDING + 10)]
    latency.arrived(keys, 1.0)
    assert len(latency.settle(shown(*keys), (), published=True, now=2.0)) == MAX_PENDING
