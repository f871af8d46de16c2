"""Adapters are published once, whole, and under a name that says which weights they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from annotation.errors import NotFound
from training import registry
from training.types import Adapter, SftConfig


@pytest.fixture
def config(configured: Callable[..., SftConfig]) -> SftConfig:
    return configured(run_name="v1-quick")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "making"
    folder.mkdir()
    (folder / registry.WEIGHTS).write_bytes(b"weights")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "README.md").write_text("a model card nobody wrote")
    return folder


def publish(made: Path, config: SftConfig) -> Adapter:
    return registry.publish(made, config, "run-1", {"trl": "1.16.0"})


def test_the_name_ends_in_the_hash_of_the_weights(made: Path, config: SftConfig) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    adapter = publish(made, config)
    assert adapter.name == f"v1-quick-{sha256[:8]}" == registry.name_of(made, config)
    assert adapter.weights_sha256 == sha256
    assert adapter.path == config.adapters_dir / adapter.name


def test_only_what_the_engine_reads_is_published(made: Path, config: SftConfig) -> None:
    adapter = publish(made, config)
    assert {path.name for path in adapter.path.iterdir()} == {*registry.FILES, registry.LINEAGE}


def test_the_lineage_leads_back_to_the_data(made: Path, config: SftConfig) -> None:
    adapter = publish(made, config)
    found = registry.get(config.adapters_dir, adapter.name)
    assert found == adapter
    assert (found.dataset_id, found.dataset_sha256) == (config.dataset_id, config.dataset_sha256)
    assert (found.run_id, found.base_name, found.versions) == ("run-1", config.base_name, {"trl": "1.16.0"})


def test_publishing_twice_ends_in_one_adapter(made: Path, config: SftConfig) -> None:
    assert publish(made, config) == publish(made, config)
    assert len(registry.all_adapters(config.adapters_dir)) == 1


def test_what_a_killed_publish_left_is_cleared_and_never_listed(made: Path, config: SftConfig) -> None:
    half = config.adapters_dir / f".making-{registry.name_of(made, config)}"
    half.mkdir(parents=True)
    (half / registry.LINEAGE).write_text("{")
    assert registry.all_adapters(config.adapters_dir) == []
    adapter = publish(made, config)
    assert [path.name for path in config.adapters_dir.iterdir()] == [adapter.name]


def test_others_may_read_what_is_published(made: Path, config: SftConfig) -> None:
    (made / registry.WEIGHTS).chmod(0o600)  # as safetensors leaves it
    umask = os.umask(0o022)
    try:
        adapter = publish(made, config)
    finally:
        os.umask(umask)
    assert (adapter.path / registry.WEIGHTS).stat().st_mode & 0o777 == 0o644


def test_a_broken_folder_hides_no_other(made: Path, config: SftConfig) -> None:
    adapter = publish(made, config)
    for name, content in (("broken", "{"), ("foreign", '{"name": "x"}')):
        (config.adapters_dir / name).mkdir()
        (config.adapters_dir / name / registry.LINEAGE).write_text(content)
    assert registry.all_adapters(config.adapters_dir) == [adapter]


@pytest.mark.parametrize("name", ["nothing", "", "..", "../making", "/etc"])
def test_a_name_that_is_none_of_ours(made: Path, config: SftConfig, name: str) -> None:
    publish(made, config)
    with pytest.raises(NotFound):
        registry.get(config.adapters_dir, name)


def test_an_adapter_is_found_where_its_folder_was_moved_to(made: Path, config: SftConfig, tmp_path: Path) -> None:
    adapter = publish(made, config)
    config.adapters_dir.rename(tmp_path / "elsewhere")
    assert registry.get(tmp_path / "elsewhere", adapter.name).path == tmp_path / "elsewhere" / adapter.name
