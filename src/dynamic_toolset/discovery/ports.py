"""Which ports of a Service were considered, and in a sentence each what was made of them. Pure."""

from functools import lru_cache

from dynamic_toolset.discovery.annotations import quoted
from dynamic_toolset.discovery.endpoints import matching_port, web_ports
from dynamic_toolset.kube.objects import Service, ServicePort
from dynamic_toolset.model import PortNote

MAX_NOTES = 20
"""How many ports of one Service are told. Real ones have up to a dozen."""

Patterns = tuple[int | str, ...]


def considered(
    service: Service,
    chosen: ServicePort | None = None,
    *,
    title: str = "",
    patterns: Patterns = (),
    annotation: str | None = None,
) -> tuple[PortNote, ...]:
    """Return a note for each port, in the Service's order; of more than MAX_NOTES, a last one for all the others.

    ``title`` is that of the service type by whose ``patterns`` ports were judged. ``chosen`` is the port of the
    endpoint, and ``annotation`` the one that named it. A port of another host, which the Service need not have, comes
    last. Every note is harmless, however a port is called.
    """
    ports = service.spec.ports or ()
    web = web_ports(service)
    if chosen is not None and chosen not in ports:
        ports = (*ports, chosen)
    if not ports:
        return ()
    notes = []
    for port in _bounded(ports, chosen):
        is_chosen = port is chosen
        pattern = _fitting(port.name, port.port, port.target_port, patterns)
        if is_chosen:
            note = _why_chosen(title, pattern, annotation, alone=len(web) == 1)
        elif port not in web:
            note = _why_not_http(port)
        elif pattern is None:
            note = f"not a port of {title}" if patterns else "it may speak HTTP, but nothing says that it is the one"
        else:
            note = f"a port of {title} ({pattern})" + (", but another one is chosen" if chosen is not None else "")
        notes.append(PortNote(port.port, quoted(port.name, 20)[1:-1] if port.name else None, is_chosen, note))
    if len(ports) > MAX_NOTES:
        more = len(ports) - MAX_NOTES
        notes.append(PortNote(0, None, chosen=False, note=f"and {more} more port{'s' if more > 1 else ''}"))
    return tuple(notes)


def _bounded(ports: tuple[ServicePort, ...], chosen: ServicePort | None) -> tuple[ServicePort, ...]:
    """Return the first MAX_NOTES ports, of which the last makes way for the chosen one if that is not among them."""
    first = ports[:MAX_NOTES]
    if chosen is None or len(ports) <= MAX_NOTES or any(port is chosen for port in first):
        return first
    return (*first[:-1], chosen)


def _why_chosen(title: str, pattern: int | str | None, annotation: str | None, *, alone: bool) -> str:
    if annotation is not None:
        return f"chosen by annotation {annotation}"
    if pattern is not None:
        return f"chosen, a port of {title} ({pattern})"
    return "chosen, the only one that may speak HTTP" if alone else "chosen, by its name that of an API"


def _why_not_http(port: ServicePort) -> str:
    if port.protocol not in {None, "", "TCP"}:
        return f"{quoted(str(port.protocol), 20)[1:-1]}, which cannot be asked over HTTP"
    if not 0 < port.port < 65536:
        return "there is no port of this number"
    return f"its appProtocol is {quoted(str(port.app_protocol), 40)[1:-1]}, which is not HTTP"


@lru_cache(maxsize=1024)  # the same few ports come again and again
def _fitting(name: str | None, number: int, target: int | str | None, patterns: Patterns) -> int | str | None:
    """Return the pattern that a port fits."""
    port = (ServicePort(number, name, target),)
    return next((pattern for pattern in patterns if matching_port(port, (pattern,)) is not None), None)
