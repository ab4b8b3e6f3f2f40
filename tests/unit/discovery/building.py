"""Short ways to write a Service in a test, and to say what must hold for every decision."""

import re
from functools import cache

from dynamic_toolset.discovery.catalog import load_catalog
from dynamic_toolset.discovery.detector import Detector
from dynamic_toolset.kube.objects import ObjectMeta, Service, ServicePort, ServiceSpec
from dynamic_toolset.model import Decision, ServiceKey
from dynamic_toolset.settings import Policy, Settings

PREFIX = "kubernaut.io/toolset"

SOMETHING = "pod=some"
"""A selector that does not say what the Pods are."""

ANY_ENDPOINTS = Settings(policy=Policy(without_selector=("*",)))
"""The settings for Services whose selector is left out."""


@cache
def catalog():
    return load_catalog()


def labels(text):
    """Read ``app=grafana component=server``; ``name``, ``component``, ``part-of``, ``instance`` and ``managed-by``
    with a dot before them are the recommended labels (``.name=grafana``)."""
    pairs = (word.partition("=")[::2] for word in text.split())
    return {key if key[0] != "." else f"app.kubernetes.io/{key[1:]}": value for key, value in pairs}


def ports(text):
    """Read ``http:80>grafana/http 9090 dns:53>53@UDP``: name, port, target port, appProtocol, protocol."""
    found = []
    for word in text.split():
        rest, _, protocol = word.partition("@")
        rest, _, app_protocol = rest.partition("/")
        rest, _, target = rest.partition(">")
        name, _, number = rest.rpartition(":")
        target = int(target) if target.isdigit() else target or int(number)
        found.append(ServicePort(int(number), name or None, target, protocol or "TCP", app_protocol or None))
    return tuple(found)


def service(name="web", own="", listens="http:80", pods=SOMETHING, namespace="shop", annotations=None, **spec):
    return Service(
        ObjectMeta(
            name=name,
            namespace=namespace,
            labels=labels(own) or None,
            annotations={PREFIX + key: value for key, value in (annotations or {}).items()} or None,
        ),
        ServiceSpec(selector=labels(pods) or None, ports=ports(listens), **spec),
    )


def headless(*args, **kwargs):
    return service(*args, **kwargs, cluster_ip="None")


def detect(one: Service, settings: Settings | None = None) -> Decision:
    return Detector(catalog(), settings or Settings()).detect(one)


def discover(*services: Service, settings: Settings | None = None) -> dict[ServiceKey, Decision]:
    return Detector(catalog(), settings or Settings()).discover(services)


LONGEST_REASON = 1200


def is_plain(reason: str) -> bool:
    """Whether it is one line that no terminal, log, page, chat or template takes for more than text."""
    return (
        0 < len(reason) <= LONGEST_REASON
        and reason.isascii()
        and reason.isprintable()
        and not re.search(r"[{}<>`$\\\[\]]", reason)
    )
