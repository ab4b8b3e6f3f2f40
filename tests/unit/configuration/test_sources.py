"""What the process itself brings: read as a whole, and looked at for changes without being read."""

import contextlib
import os
import threading
from pathlib import Path

import pytest

from dynamic_toolset.configuration.sources import Sources
from dynamic_toolset.discovery.catalog import CatalogError
from dynamic_toolset.settings import Resource, SettingsError

CUSTOM = (Path(__file__).parents[3] / "src/dynamic_toolset/discovery/catalog/custom.yaml").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "types"
    folder.mkdir()
    (folder / "orders.yaml").write_text(CUSTOM.replace("name: custom", "name: orders", 1))
    return folder


@pytest.fixture
def file(tmp_path: Path, folder: Path) -> Path:
    file = tmp_path / "settings.yaml"
    file.write_text(f"catalogFolder: {folder}\n")
    return file


def test_a_resource_lies_between_file_and_environment(file: Path) -> None:
    file.write_text("clusterDomain: file\nendpointHost: clusterIP\nrequireAnnotations: true\n")
    basis = Sources(file, {"DYNAMIC_TOOLSET_CLUSTER_DOMAIN": "environment", "HOME": "/"}, ["dryRun=true"]).read()
    setup = basis.under(Resource("mine", {"clusterDomain": "resource", "endpointHost": "dns", "dryRun": False}))
    found = {path: (source.kind, source.name) for path, source in setup.sources.items() if source.kind != "default"}
    assert found == {
        "clusterDomain": ("environment", "DYNAMIC_TOOLSET_CLUSTER_DOMAIN"),
        "endpointHost": ("resource", "mine"),
        "requireAnnotations": ("file", str(file)),
        "dryRun": ("option", None),
    }
    assert (setup.settings.cluster_domain, setup.settings.endpoint_host) == ("environment", "dns")
    assert setup.settings.dry_run
    assert basis.under(None).settings.endpoint_host == "clusterIP"


def test_types_that_the_catalog_does_not_know_are_refused_from_either(file: Path) -> None:
    basis = Sources(file).read()
    assert basis.under(Resource("mine", {"policy": {"trustedTypes": ["orders"]}}))
    with pytest.raises(SettingsError, match="grafanna"):
        basis.under(Resource("mine", {"policy": {"trustedTypes": ["grafanna"]}}))
    with pytest.raises(SettingsError, match="grafanna"):
        Sources(file, {}, ["policy.trustedTypes=grafanna"]).read()


def test_what_is_as_it_was_read_looks_like_it(file: Path, folder: Path) -> None:
    sources = Sources(file)
    sources.read()
    assert sources.look() is None
    before = folder.stat()
    (folder / "README.md").write_text("not read")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sources.look() is None


@pytest.mark.parametrize(
    "change",
    [
        lambda file, _: file.write_text("endpointHost: clusterIP\n"),
        lambda file, _: file.unlink(),
        lambda file, _: os.utime(file),
        lambda _, folder: (folder / "orders.yaml").write_text(CUSTOM),
        lambda _, folder: (folder / "orders.yaml").unlink(),
        lambda _, folder: (folder / "more.yaml").write_text(CUSTOM),
        lambda _, folder: folder.rename(folder.with_name("elsewhere")),
    ],
    ids=["written", "gone", "touched", "type", "no type", "another type", "no folder"],
)
def test_what_changes_looks_different_until_it_is_read(file: Path, folder: Path, change: object) -> None:
    sources = Sources(file)
    sources.read()
    change(file, folder)  # type: ignore[operator]
    assert sources.look() is not None
    assert sources.look() == sources.look()
    with contextlib.suppress(SettingsError, CatalogError):
        sources.read()
    assert sources.look() is None


def test_a_link_that_is_swapped_looks_different_though_the_new_file_is_its_twin(tmp_path: Path) -> None:
    for name in ("..1", "..2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.yaml").write_text("{}\n")
        os.utime(tmp_path / name / "settings.yaml", ns=(1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "settings.yaml").symlink_to("..data/settings.yaml")
    sources = Sources(tmp_path / "settings.yaml")
    sources.read()
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert sources.look() is not None


def test_a_folder_that_a_file_names_too_early_is_looked_at(file: Path, tmp_path: Path) -> None:
    sources = Sources(file)
    sources.read()
    file.write_text(f"catalogFolder: {tmp_path / 'later'}\n")
    with pytest.raises(CatalogError):
        sources.read()
    assert sources.look() is None
    (tmp_path / "later").mkdir()
    assert sources.look() is not None
    sources.read()


def test_a_pipe_is_read_once_and_never_waited_for_later(file: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=["dryRun: true\n"])
    writer.start()
    sources = Sources(pipe)
    assert sources.read().alone.settings.dry_run
    writer.join()
    assert sources.look() is None
    assert sources.read().alone.settings.dry_run

    sources = Sources(file)
    sources.read()
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(SettingsError, match="not a regular file"):
        sources.read()
