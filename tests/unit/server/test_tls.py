"""A certificate whose files change: what a client is shown, over real handshakes."""

import os
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dynamic_toolset.server.tls import Certificate

KEPT = Path(__file__).parents[1] / "kube" / "tls"
FIRST, SECOND = ((KEPT / f"{name}.crt", KEPT / f"{name}.key") for name in ("first", "second"))


def shown(certificate: Certificate, name: str | None = None) -> bytes:
    """Shake hands, and return the certificate that a client is shown."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname=name)
    server = certificate.context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    found = client.getpeercert(binary_form=True)
    assert found
    return found


def der(pair: tuple[Path, Path]) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair[0].read_text())


class Mounted:
    """A folder as the kubelet mounts a Secret: names that lead through a link, which is swapped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = 0
        self.swap(FIRST)
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(f"..data/{name}")

    def swap(self, pair: tuple[Path, Path]) -> None:
        self._versions += 1
        version = self.folder / f"..version{self._versions}"
        version.mkdir()
        (version / "tls.crt").write_bytes(pair[0].read_bytes())
        (version / "tls.key").write_bytes(pair[1].read_bytes())
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    pair = tmp_path / "tls.crt", tmp_path / "tls.key"
    write(pair, FIRST)
    return pair


def write(to: tuple[Path, Path], pair: tuple[Path, Path]) -> None:
    for target, source in zip(to, pair, strict=True):
        new = target.with_suffix(".new")
        new.write_bytes(source.read_bytes())
        new.replace(target)


def certificate(files: tuple[Path, Path]) -> Certificate:
    return Certificate(*map(str, files))


@pytest.mark.parametrize("name", [None, "localhost"])
def test_files_that_change_are_taken_over(files: tuple[Path, Path], name: str | None) -> None:
    used = certificate(files)
    assert shown(used, name) == der(FIRST)
    used.look()
    assert shown(used, name) == der(FIRST)
    write(files, SECOND)
    assert shown(used, name) == der(FIRST)
    used.look()
    assert shown(used, name) == der(SECOND)


def test_a_link_that_is_swapped_as_the_kubelet_does_is_noticed(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path)
    used = certificate((tmp_path / "tls.crt", tmp_path / "tls.key"))
    assert shown(used) == der(FIRST)
    mounted.swap(SECOND)
    used.look()
    assert shown(used) == der(SECOND)
    mounted.swap(FIRST)
    used.look()
    assert shown(used) == der(FIRST)


Breakage = Callable[[tuple[Path, Path]], object]


@pytest.mark.parametrize(
    "breakage",
    [
        lambda files: files[0].unlink(),
        lambda files: files[1].unlink(),
        lambda files: files[0].write_text("no certificate"),
        lambda files: files[1].write_text(""),
        lambda files: files[0].write_bytes(SECOND[0].read_bytes()),  # the key of another
        lambda files: files[1].write_bytes(SECOND[1].read_bytes()),
        lambda files: files[0].write_bytes(b"\xff" * 100),
        lambda files: (files[0].unlink(), os.mkfifo(files[0])),  # nobody waits for what comes through it
    ],
)
def test_files_that_cannot_be_used_later_leave_the_last_good_ones_in_use(
    files: tuple[Path, Path], breakage: Breakage
) -> None:
    used = certificate(files)
    breakage(files)
    used.look()
    used.look()
    assert shown(used) == der(FIRST)
    write(files, SECOND)
    used.look()
    assert shown(used) == der(SECOND)


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_files_that_cannot_be_used_at_the_start_are_an_error(files: tuple[Path, Path], content: str | None) -> None:
    if content is None:
        files[1].unlink()
    else:
        files[1].write_text(content)
    with pytest.raises(OSError, match=r"(?i)no such file|pem|ssl|key|start"):
        certificate(files)


def test_a_key_that_needs_a_password_is_an_error_and_no_question(files: tuple[Path, Path]) -> None:
    files[1].write_text(ENCRYPTED)
    with pytest.raises(OSError, match=r"(?i)no such file|pem|ssl|key|start"):
        certificate(files)


def test_no_tls_older_than_1_2_is_spoken(files: tuple[Path, Path]) -> None:
    assert certificate(files).context.minimum_version == ssl.TLSVersion.TLSv1_2


ENCRYPTED = """\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF

MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4
-----END EC PRIVATE KEY-----
"""
