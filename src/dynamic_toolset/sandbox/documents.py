"""The documents by which clients such as kubectl learn what an API serves."""

from collections.abc import Mapping
from itertools import groupby

from dynamic_toolset.sandbox.resources import RESOURCES, REVIEWS, Object, Resource

_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def documents() -> Mapping[str, Object]:
    """Return the documents by path."""
    groups = {
        place: list(members)
        for place, members in groupby((*RESOURCES, *REVIEWS), lambda resource: (resource.group, resource.version))
    }
    named = [_group(group, version) for group, version in groups if group]
    found: dict[str, Object] = {
        "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.0+sandbox", "platform": "python/any"},
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": named},
    }
    for (group, version), members in groups.items():
        root = f"/apis/{group}" if group else "/api"
        found[f"{root}/{version}"] = _resources(members)
        if group:
            found[root] = {"kind": "APIGroup", "apiVersion": "v1", **_group(group, version)}
    return found


def _group(name: str, version: str) -> Object:
    entry = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [entry], "preferredVersion": entry}


def _resources(members: list[Resource]) -> Object:
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": members[0].api_version,
        "resources": [
            {
                "name": resource.plural,
                "singularName": resource.kind.lower(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": ["create"] if resource in REVIEWS else _VERBS,
                "shortNames": list(resource.short),
            }
            for resource in members
        ]
        + [
            {
                "name": f"{resource.plural}/status",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": ["get", "patch", "update"],
            }
            for resource in members
            if resource.reports
        ],
    }
