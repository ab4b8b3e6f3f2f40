"""What a rejected Service fails by, in one word: for counting, where the reason is for reading."""

import pytest

from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.kube.objects import Service
from dynamic_toolset.model import Rejection
from dynamic_toolset.settings import Policy, Settings

from .building import catalog, discover, service

WANTED = {"": "enabled", "-type": "orders"}


@pytest.mark.parametrize(
    ("one", "rejection"),
    [
        (service(annotations={"": "yes"}), Rejection.ANNOTATION),
        (service(annotations={"": "enabled"}), Rejection.ANNOTATION),
        (service(listens="a:80 b:81", annotations=WANTED), Rejection.ANNOTATION),
        (service(annotations={**WANTED, "-port": "81"}), Rejection.ANNOTATION),
        (service(listens="dns:53@UDP", annotations=WANTED), Rejection.PORT),
        (service(pods="", annotations=WANTED), Rejection.POLICY),
        (service(own=" ".join(f"l{n}=x" for n in range(65)), annotations=WANTED), Rejection.LIMIT),
        (service(own=".name=grafana", pods="", listens="http:3000"), Rejection.POLICY),
        (service(annotations=WANTED), None),
        (service(annotations={"": "disabled"}), None),
        (service(), None),
    ],
)
def test_a_rejection_says_whose_turn_it_is(one: Service, rejection: Rejection | None) -> None:
    assert Detector(catalog(), Settings()).detect(one).rejection is rejection


@pytest.mark.parametrize("policy", [Policy(max_per_namespace=1), Policy(max_in_all=1)])
def test_what_is_too_much_is_beyond_a_limit(policy: Policy) -> None:
    both = [service(name, pods=f"app={name}", annotations=WANTED) for name in ("a", "b")]
    decided = discover(*both, settings=Settings(policy=policy))
    assert [decision.rejection for decision in decided.values()] == [None, Rejection.LIMIT]
