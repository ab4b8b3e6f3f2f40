"""What the API fills in where an object says nothing. Pure."""

from dynamic_toolset.sandbox.resources import LEASES, NAMESPACES, SERVICES, Object, Resource
from dynamic_toolset.sandbox.times import micro_time

_STRING_MAPS = ("data", "binaryData")


def known(resource: Resource, obj: Object) -> Object:
    """Return what the API understands of an object: the fields of its kind, with ``""`` for a null string."""
    metadata = dict(obj.get("metadata") or {})
    for key in ("labels", "annotations"):
        if key in metadata:
            metadata[key] = _strings(metadata[key])
    understood: Object = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    for field in (field for field in resource.fields if field in obj):
        understood[field] = _strings(obj[field]) if field in _STRING_MAPS else obj[field]
    return understood


def tidy(obj: Object) -> Object:
    """Return an object without its empty string maps. A null list stays, as EndpointSlices have it on the wire."""
    metadata = {key: value for key, value in obj["metadata"].items() if value}
    return {key: value for key, value in obj.items() if value or key not in _STRING_MAPS} | {"metadata": metadata}


def _strings(value: object) -> object:
    if isinstance(value, dict):
        return {key: "" if text is None else text for key, text in value.items()}
    return value


def complete(resource: Resource, obj: Object) -> Object:
    """Return the object with the defaults of its kind (k8s.io/kubernetes ``pkg/apis/core/v1/defaults.go``)."""
    if resource == SERVICES:
        return {**obj, "spec": _service(obj.get("spec") or {}), "status": {"loadBalancer": {}}}
    if resource == LEASES:
        return {**obj, "spec": _lease(obj.get("spec") or {})}
    if resource == NAMESPACES:
        metadata = obj["metadata"]
        labels = {"kubernetes.io/metadata.name": metadata.get("name", "")} | (metadata.get("labels") or {})
        return {**obj, "metadata": {**metadata, "labels": labels}}
    return obj


def _service(spec: Object) -> Object:
    kind = spec.get("type") or "ClusterIP"
    filled = {**spec, "type": kind, "sessionAffinity": spec.get("sessionAffinity") or "None"}
    if spec.get("ports"):
        filled["ports"] = [_port(port) for port in spec["ports"]]
    if not filled.get("selector"):
        filled.pop("selector", None)
    if kind != "ExternalName":
        filled.setdefault("internalTrafficPolicy", "Cluster")
    return filled


def _lease(spec: Object) -> Object:
    stated = {key: value for key, value in spec.items() if value is not None}
    return stated | {key: micro_time(stated[key]) for key in ("acquireTime", "renewTime") if key in stated}


def _port(port: Object) -> Object:
    filled = {**port, "protocol": port.get("protocol") or "TCP"}
    if not filled.get("targetPort"):
        filled["targetPort"] = port.get("port")
    return filled
