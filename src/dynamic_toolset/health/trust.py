"""What the certificates of backends are verified with."""

import ssl
from pathlib import Path

from dynamic_toolset.files import read_regular
from dynamic_toolset.settings import HealthCheckSettings, SettingsError

MAX_BYTES = 4 * 1024 * 1024
"""How long a CA file may be. That of a system, with all authorities of the world, has a quarter of a megabyte."""


def read_authorities(settings: HealthCheckSettings) -> str:
    """Return what ``caFile`` holds, as ``trust`` takes it; empty without such a file, or if nothing is verified.

    Raises SettingsError for a file that cannot be read, or holds no certificate.
    """
    if not settings.ca_file or not settings.verify_tls:
        return ""
    name = f"healthCheck.caFile {settings.ca_file}"
    try:
        content = read_regular(Path(settings.ca_file), MAX_BYTES)
    except OSError as error:
        raise SettingsError(f"{name}: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"{name}: longer than {MAX_BYTES} bytes")
    # Comments between the certificates may be in any language, but what is handed to OpenSSL may not.
    authorities = content.decode("ascii", errors="replace").replace("\N{REPLACEMENT CHARACTER}", "?")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError(f"{name}: no certificates in PEM, -----BEGIN CERTIFICATE-----: {error}") from None
    return authorities


def trust(settings: HealthCheckSettings, authorities: str) -> ssl.SSLContext:
    """Return what certificates are verified with: the system's authorities, and these besides.

    Nor is the server's choice of key exchange trusted: a handshake in the group ffdhe8192 would cost us 240 ms of
    computing, in P-256 it costs one. That every TLS 1.3 server has (RFC 8446, section 9.1).
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!SHA1")  # for TLS 1.2
    context.set_ecdh_curve("prime256v1")
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not settings.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authorities:
        context.load_verify_locations(cadata=authorities)
    return context
