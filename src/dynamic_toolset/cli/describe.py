"""What was decided about a Service, in the words that every command uses."""

from dynamic_toolset.model import Decision, ServiceKey


def facts(key: ServiceKey, decision: Decision) -> dict[str, str | bool | None]:
    """Return the decision as the fields of a JSON object; ``type`` and ``endpoint`` are None where there is none."""
    return {
        "namespace": key.namespace,
        "name": key.name,
        "decision": decision.outcome.value,
        "type": decision.type,
        "endpoint": decision.endpoint,
        "reason": decision.reason,
    }
