"""What the API checks before it stores an object: shapes, then names and values. Pure.

Only the rules that our service or a person at the demo can run into; kube-apiserver knows many more.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from dynamic_toolset.sandbox.resources import (
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    LEASES,
    NAMESPACES,
    SERVICES,
    Object,
    Resource,
)
from dynamic_toolset.sandbox.status import Cause
from dynamic_toolset.sandbox.times import micro_time

MAX_CONFIG_MAP_BYTES = 1 << 20
"""The most that ``data`` and ``binaryData`` may hold together (core/v1 ``MaxSecretSize``)."""

_Strings = dict[str, str] | None
_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class _MicroTime:
    """Stands for a text that ``micro_time`` can read."""


class _Metadata(Struct, rename="camel"):
    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    labels: _Strings = None
    annotations: _Strings = None


class _Port(Struct, rename="camel"):
    port: int | None = None
    name: str | None = None
    protocol: str | None = None
    target_port: int | str | None = None
    app_protocol: str | None = None


class _Spec(Struct, rename="camel"):
    ports: list[_Port] | None = None
    selector: _Strings = None
    type: str | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    external_name: str | None = None


class _Any(Struct):
    metadata: _Metadata


class _Service(_Any):
    spec: _Spec | None = None


class _ConfigMap(_Any, rename="camel"):
    data: _Strings = None
    binary_data: _Strings = None
    immutable: bool | None = None


class _LeaseSpec(Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: _Int32 | None = None
    lease_transitions: _Int32 | None = None
    acquire_time: _MicroTime | None = None
    renew_time: _MicroTime | None = None


class _Lease(_Any):
    spec: _LeaseSpec | None = None


_SHAPES: Mapping[str, type[_Any]] = {SERVICES.kind: _Service, CONFIG_MAPS.kind: _ConfigMap, LEASES.kind: _Lease}


def misshapen(resource: Resource, obj: Object) -> str | None:
    """Return what cannot be decoded as the kind, such as a number in ``data``, or None if all can."""
    try:
        msgspec.convert(obj, _SHAPES.get(resource.kind, _Any), dec_hook=_read)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _read(_type: type, value: object) -> _MicroTime:
    """Check a value of a type that msgspec does not know, of which there is one."""
    micro_time(value)
    return _MicroTime()


def problems(resource: Resource, obj: Object) -> list[Cause]:
    """Return everything that is wrong with an object of the right shape, after the defaults are in."""
    found = [*_metadata(resource, obj["metadata"])]
    if resource == CONFIG_MAPS:
        found += _config_map(obj)
    elif resource == SERVICES:
        found += _service(obj.get("spec") or {})
    elif resource == LEASES:
        found += _lease(obj.get("spec") or {})
    elif resource == ENDPOINT_SLICES and not obj.get("addressType"):
        found.append(Cause("FieldValueRequired", "Required value", "addressType"))
    return found


# --- Metadata --------------------------------------------------------------------------------------------------------

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")

_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character"
)
_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character"
)
_CONFIG_KEY_RULE = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"


def _metadata(resource: Resource, metadata: Object) -> Iterator[Cause]:
    yield from _name(resource, metadata.get("name") or "")
    for key, value in (metadata.get("labels") or {}).items():
        if not _qualified(key):
            yield _invalid(key, _KEY_RULE, "metadata.labels")
        if len(value) > 63 or (value and not _NAME_PART.fullmatch(value)):
            yield _invalid(value, _VALUE_RULE, "metadata.labels")
    for key in metadata.get("annotations") or ():
        if not _qualified(key.lower()):
            yield _invalid(key, _KEY_RULE, "metadata.annotations")


def _name(resource: Resource, name: str) -> Iterator[Cause]:
    field = "metadata.name"
    label = resource in {NAMESPACES, SERVICES}
    limit = 63 if label else 253
    if not name:
        yield Cause("FieldValueRequired", "Required value: name or generateName is required", field)
    elif resource == SERVICES and "." in name:
        yield _invalid(name, "must not contain dots", field)
    elif not (_LABEL if label else _SUBDOMAIN).fullmatch(name):
        yield _invalid(name, _LABEL_RULE if label else _SUBDOMAIN_RULE, field)
    elif len(name) > limit:
        yield _invalid(name, f"must be no more than {limit} characters", field)


def _qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= 253):
        return False
    return bool(_NAME_PART.fullmatch(name)) and len(name) <= 63


def _invalid(value: object, why: str, field: str) -> Cause:
    said = value if isinstance(value, int) else f'"{value}"'
    return Cause("FieldValueInvalid", f"Invalid value: {said}: {why}", field)


# --- Kinds -----------------------------------------------------------------------------------------------------------


def _config_map(obj: Object) -> Iterator[Cause]:
    size = 0
    for part in ("data", "binaryData"):
        for key, value in (obj.get(part) or {}).items():
            size += len(value.encode())
            if not _CONFIG_KEY.fullmatch(key):
                yield _invalid(key, _CONFIG_KEY_RULE, f"{part}[{key}]")
    if size > MAX_CONFIG_MAP_BYTES:
        yield Cause("FieldValueTooLong", f"Too long: may not be more than {MAX_CONFIG_MAP_BYTES} bytes", "[]")


def _lease(spec: Object) -> Iterator[Cause]:
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        yield _invalid(duration, "must be greater than 0", "spec.leaseDurationSeconds")
    if transitions is not None and transitions < 0:
        yield _invalid(transitions, "must be greater than or equal to 0", "spec.leaseTransitions")


def _service(spec: Object) -> Iterator[Cause]:
    if spec["type"] == "ExternalName":
        if not spec.get("externalName"):
            yield Cause("FieldValueRequired", "Required value", "spec.externalName")
        return
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None":
        yield Cause("FieldValueRequired", "Required value", "spec.ports")
    names = set()
    for position, port in enumerate(ports):
        field = f"spec.ports[{position}]"
        name = port.get("name")
        if name in names:
            yield Cause("FieldValueInvalid", f'Duplicate value: "{name}"', f"{field}.name")
        if name:
            names.add(name)
        elif len(ports) > 1:
            yield Cause("FieldValueRequired", "Required value", f"{field}.name")
        yield from _port(port, field)


def _port(port: Object, field: str) -> Iterator[Cause]:
    for key in ("port", "targetPort"):
        number = port.get(key)
        if isinstance(number, int) and not 1 <= number <= 65535:
            yield _invalid(number, "must be between 1 and 65535, inclusive", f"{field}.{key}")
    if port.get("port") is None:
        yield _invalid(0, "must be between 1 and 65535, inclusive", f"{field}.port")
    if port["protocol"] not in {"SCTP", "TCP", "UDP"}:
        message = f'Unsupported value: "{port["protocol"]}": supported values: "SCTP", "TCP", "UDP"'
        yield Cause("FieldValueNotSupported", message, f"{field}.protocol")
