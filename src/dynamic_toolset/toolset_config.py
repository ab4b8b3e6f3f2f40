"""The ToolsetConfig as it goes over the wire: the Kubernetes resource that configures an instance and shows how it is.

What ``spec`` may hold is said by the settings (``settings.resource``); here it is whatever the API server has stored.
The status follows the API conventions (github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/
api-conventions.md, "Spec and Status"), and its descriptions and bounds are those of the CustomResourceDefinition.
Times are RFC 3339 in UTC, of whole seconds: ``2026-01-31T12:00:00Z``.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from dynamic_toolset.kube.objects import ObjectMeta, ObjectReference
from dynamic_toolset.kube.resources import Resource

GROUP = "toolset.kubernaut.io"
VERSION = "v1alpha1"
KIND = "ToolsetConfig"
PLURAL = "toolsetconfigs"
API_VERSION = f"{GROUP}/{VERSION}"
TOOLSET_CONFIGS = Resource(GROUP, VERSION, PLURAL)

MAX_SERVICES = 500
"""How many services a status lists."""

MAX_ERRORS = 100
"""How many errors it lists."""

MAX_ENDPOINT = 1024
MAX_MESSAGE = 512
MAX_CONDITION_MESSAGE = 4096
MAX_DIFF = 16 * 1024
"""How many characters an endpoint, a message and a diff have at most. With all of them as long as may be, an object
still fits into etcd, which takes 1.5 MiB."""

Label = Annotated[str, Meta(max_length=63)]
Name = Annotated[str, Meta(max_length=253)]
Word = Annotated[str, Meta(max_length=64)]
Message = Annotated[str, Meta(max_length=MAX_MESSAGE)]
Count = Annotated[int, Meta(ge=0)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]

Phase = Literal["Pending", "Ready", "Degraded", "Paused", "DryRun", "Invalid", "Ignored"]
"""The status in one word. ``Ignored``: another ToolsetConfig of this namespace is the one that counts. The schema takes
any word, so that an older CustomResourceDefinition takes the status of a newer program."""


class Condition(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One aspect of the state (meta/v1 Condition)."""

    type: Annotated[
        str, Meta(max_length=316, description="The aspect, in CamelCase: Ready, Synced, OverridesValid, Degraded, ...")
    ]
    status: Annotated[Literal["True", "False", "Unknown"], Meta(description="Whether it is so.")]
    reason: Annotated[str, Meta(min_length=1, max_length=1024, description="Why, as one word in CamelCase.")]
    message: Annotated[str, Meta(max_length=MAX_CONDITION_MESSAGE, description="Why, as a sentence for people.")]
    last_transition_time: Annotated[Time, Meta(description="When `status` last changed.")]
    observed_generation: Annotated[
        Count | None, Meta(description="The `metadata.generation` of which this was said.")
    ] = None


class ServiceStatus(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One discovered service."""

    namespace: Annotated[Label, Meta(description="The namespace of the Service.")]
    name: Annotated[Label, Meta(description="The name of the Service.")]
    type: Annotated[Label, Meta(description="The service type for which it is taken.")]
    endpoint: Annotated[str, Meta(max_length=MAX_ENDPOINT, description="The URL that the agent uses.")]
    healthy: Annotated[bool, Meta(description="Whether it answers as what it claims to be.")]
    condition: Annotated[Word, Meta(description="Its health in one word: Healthy, Unhealthy, Unknown, ...")]
    cluster: Annotated[
        Label,
        Meta(
            description="The cluster it is in; empty for the one that holds this object.",
            # What a key of a list holds must be given, by somebody or by the schema.
            extra_json_schema={"default": ""},
        ),
    ] = ""
    last_checked: Annotated[
        Time | None,
        Meta(
            description="When it was last checked, as of the last write of this status: "
            "a check that changes nothing is no reason to write."
        ),
    ] = None
    reason: Annotated[Word, Meta(description="Why it has this health, as one word in CamelCase.")] = ""
    message: Annotated[Message, Meta(description="Why it has this health, as a sentence for people.")] = ""


class ConfigMapRef(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is published."""

    name: Annotated[Name, Meta(description="The name of the ConfigMap.")]
    namespace: Annotated[Name, Meta(description="The namespace of the ConfigMap.")]
    hash: Annotated[
        str, Meta(max_length=128, description="The hash of the documents in it: it changes exactly if they change.")
    ] = ""


class Status(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What has become of the spec. Nobody but the program writes it."""

    observed_generation: Annotated[
        Count, Meta(description="The `metadata.generation` of the spec of which this status speaks.")
    ] = 0
    phase: Annotated[
        str,
        Meta(
            max_length=64,
            description="The state in one word: Pending, Ready, Degraded, Paused, DryRun, Invalid (the spec cannot be "
            "used, and the settings before it stay in force) or Ignored (another ToolsetConfig counts).",
        ),
    ] = ""
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(
            max_length=32,
            description="The state in detail, one entry for each aspect.",
            extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()
    last_discovery_time: Annotated[
        Time | None, Meta(description="When everything was last looked at and checked anew.")
    ] = None
    next_discovery_time: Annotated[
        Time | None, Meta(description="When that is due again. A change is seen at once in any case.")
    ] = None
    discovery_count: Annotated[
        Count, Meta(description="How often everything was looked at since the program was started.")
    ] = 0
    services_discovered: Annotated[
        Count | None, Meta(description="How many Services are taken for a service type.")
    ] = None
    services_healthy: Annotated[Count | None, Meta(description="How many of them are healthy.")] = None
    services_unhealthy: Annotated[Count | None, Meta(description="How many of them are not.")] = None
    discovered_services: Annotated[
        tuple[ServiceStatus, ...],
        Meta(
            max_length=MAX_SERVICES,
            description=f"The first {MAX_SERVICES} of them, by namespace and name.",
            extra_json_schema={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["namespace", "name", "cluster"],
            },
        ),
    ] = ()
    omitted_services: Annotated[Count, Meta(description="How many more there are than are listed.")] = 0
    errors: Annotated[
        tuple[Message, ...],
        Meta(
            max_length=MAX_ERRORS,
            description="What is wrong, one sentence each.",
            extra_json_schema={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()
    config_map_ref: Annotated[ConfigMapRef | None, Meta(description="The ConfigMap that is published.")] = None
    would_change: Annotated[
        bool | None, Meta(description="With `dryRun` or `paused`: whether the ConfigMap would be changed.")
    ] = None
    diff: Annotated[
        str, Meta(max_length=MAX_DIFF, description="With `dryRun`: what would be changed, as a unified diff.")
    ] = ""


class ToolsetConfigMeta(ObjectMeta, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """``metadata`` with the number that grows with each change of the spec."""

    generation: int = 0


class ToolsetConfig(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A ToolsetConfig as far as we read it. Both parts are as they are stored, which may be older than any rule.

    What anybody wrote into the status must not keep us from the spec: see ``written``.
    """

    metadata: ToolsetConfigMeta
    spec: Any = None
    status: Any = None


def reference(config: ToolsetConfig | None) -> ObjectReference | None:
    """Return what an Event on a ToolsetConfig refers to; None if there is none."""
    if config is None:
        return None
    named = config.metadata
    return ObjectReference(API_VERSION, KIND, named.name, named.namespace, named.uid, named.resource_version)


def written(config: ToolsetConfig) -> Status:
    """Return the status that is stored, as far as it is one: an empty one stands for what nobody can read."""
    try:
        return msgspec.convert(config.status or {}, Status)
    except msgspec.ValidationError:
        return Status()
