"""Adapters in the running engine: checked, loaded without a restart, remembered, put back after a crash."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from threading import RLock
from typing import Any

from pydantic import ValidationError

from annotation.errors import UserError
from annotation.files import sha256_of, write_whole
from annotation.types import Frozen
from serving.client import Client
from serving.engine import BASE
from training import registry
from training.types import Adapter

UNSERVED = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
)
"""Settings of an adapter that vLLM refuses, or would serve wrongly."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""Ways to begin a LoRA that change the base model's own weights, so that it fits no base that is served."""


class Held(Frozen):
    """`serving.json`: what the engine should hold, oldest load first, and what was ever offered to it."""

    wanted: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()


class AdapterServer:
    """The engine's adapters. The engine forgets them when it ends; `serving.json` does not."""

    def __init__(self, client: Client, adapters: Path, memory: Path, base: Base, max_adapters: int) -> None:
        self._client = client
        self._root = adapters
        self._memory = memory
        self._base = base
        self._max = max_adapters
        self._lock = RLock()

    def loaded(self) -> list[str]:
        """Names the engine answers to, the base left out. Raises UserError if it does not answer."""
        return [name for name in self._client.models() if name != BASE]

    def load(self, name: str) -> Adapter:
        """Check an adapter and load it; loading it again changes nothing.

        Where the engine is full, the adapter loaded longest ago makes room. Raises NotFound, and UserError for an
        adapter that would be served wrongly or is refused.
        """
        with self._lock:
            adapter = registry.get(self._root, name)
            loaded = self.loaded()
            if name not in loaded:
                check(adapter, self._base)
                for oldest in self._in_the_way(loaded):
                    self.unload(oldest)
                # Never with load_inplace: vLLM would read the file from disk anew at every step.
                self._client.post(
                    "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(adapter.path.resolve())}
                )
                self._confirm(name)
            held = self._held()
            wanted = (*(kept for kept in held.wanted if kept != name), name)
            self._keep(held.model_copy(update={"wanted": wanted, "offered": _with(held.offered, name)}))
        return adapter

    def unload(self, name: str) -> None:
        """Take an adapter out; nothing happens if it is not in."""
        with self._lock:
            if name in self.loaded():
                self._client.post("/v1/unload_lora_adapter", {"lora_name": name})
            held = self._held()
            self._keep(held.model_copy(update={"wanted": tuple(kept for kept in held.wanted if kept != name)}))

    def restore(self) -> dict[str, str]:
        """Put back what the engine should hold; returns the problem of each adapter that could not be."""
        problems = {}
        for name in self._held().wanted:
            try:
                self.load(name)
            except UserError as error:
                problems[name] = str(error)
        return problems

    def offer_new(self) -> dict[str, str]:
        """Load each adapter that was never offered before (a run has just finished); returns name and problem or ''."""
        offered = set(self._held().offered)
        found = {}
        for adapter in reversed(registry.all_adapters(self._root)):
            if adapter.name in offered:
                continue
            try:
                self.load(adapter.name)
                found[adapter.name] = ""
            except UserError as error:
                found[adapter.name] = str(error)
                held = self._held()
                self._keep(held.model_copy(update={"offered": _with(held.offered, adapter.name)}))
        return found

    def _in_the_way(self, loaded: list[str]) -> list[str]:
        """Which of `loaded` must go so that one more fits: first those nobody here asked for, then the oldest."""
        wanted = self._held().wanted
        oldest_first = sorted(loaded, key=lambda name: wanted.index(name) if name in wanted else -1)
        return oldest_first[: max(0, len(loaded) - self._max + 1)]

    def _confirm(self, name: str) -> None:
        if name not in self.loaded():
            raise UserError(f"The engine took {name}, but does not list it.", do="Try again, or restart the engine.")

    def _held(self) -> Held:
        try:
            return Held.model_validate_json(self._memory.read_bytes())
        except (FileNotFoundError, ValidationError):
            return Held()

    def _keep(self, held: Held) -> None:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._memory, held.model_dump_json())


class Base(Frozen):
    """The base model that is being served."""

    name: str
    folder: Path
    revision: str | None = None
    max_rank: int = 32


def check(adapter: Adapter, base: Base) -> None:
    """Raise UserError if serving `adapter` on `base` would fail, or worse, answer with something else.

    vLLM itself does not notice an adapter of another base model whose shapes fit.
    """
    if (adapter.base_name, adapter.base_revision) != (base.name, base.revision):
        raise UserError(
            f"{adapter.name} was trained on {_named(adapter.base_name, adapter.base_revision)}.",
            f"An adapter of the model that is served: {_named(base.name, base.revision)}.",
            "Train it again on this model, or serve the other one.",
        )
    config = _config(adapter)
    rank = max(
        adapter.rank, int(config.get("r") or 0), *(int(own) for own in (config.get("rank_pattern") or {}).values())
    )
    if rank > base.max_rank:
        raise UserError(
            f"{adapter.name} has rank {rank}.",
            f"At most {base.max_rank}.",
            "Set TONESMITH_MAX_RANK higher and start again, or train with a smaller rank.",
        )
    odd = [name for name in UNSERVED if config.get(name)]
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if config.get("peft_type", "LORA") != "LORA":
        odd.append(str(config["peft_type"]))
    if str(config.get("init_lora_weights")).lower().startswith(CHANGES_BASE):
        odd.append(f"init_lora_weights={config['init_lora_weights']}")
    if odd:
        raise UserError(f"{adapter.name} uses {', '.join(odd)}.", "A plain LoRA adapter: vLLM serves no other.")
    _check_weights(adapter, base)


def _named(name: str, revision: str | None) -> str:
    return f"{name} at {revision}" if revision else name


def _config(adapter: Adapter) -> dict[str, Any]:
    try:
        return dict(json.loads((adapter.path / "adapter_config.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(
            f"{adapter.name} has no readable adapter_config.json.", do="Train it again, or put the file back."
        ) from error


def _check_weights(adapter: Adapter, base: Base) -> None:
    path = adapter.path / registry.WEIGHTS
    damaged = UserError(
        f"The weights of {adapter.name} are missing or damaged.",
        "The file as its run wrote it.",
        "Put it back from a copy, or train again.",
    )
    if not path.is_file() or sha256_of(path) != adapter.weights_sha256:
        raise damaged
    try:
        shapes = tensor_shapes(path)
    except ValueError as error:
        raise damaged from error
    problem = misfit(shapes, base_shapes(base.folder))
    if problem:
        raise UserError(
            f"{adapter.name} does not fit {base.name}: {problem}.",
            "Two matrices for a layer that the model has, as wide as that layer.",
            "Train it on the model that is served.",
        )


def misfit(adapter: dict[str, list[int]], base: dict[str, list[int]]) -> str:
    """Why an adapter's tensors can't belong to a base model's, '' if they can; both as name and shape.

    A layer `model.x.weight` (out, in) takes `base_model.model.model.x.lora_A.weight` (rank, in) and `….lora_B.weight`
    (out, rank).
    """
    if not adapter:
        return "it has no weights"
    for name, shape in adapter.items():
        layer, found, _ = name.removeprefix("base_model.model.").partition(".lora_")
        under = base.get(f"{layer}.weight")
        if not found or under is None:
            return f"the model has no layer for {name}"
        side, width = (1, shape[1]) if ".lora_A." in name else (0, shape[0])
        if width != under[side]:
            return f"{layer} is {under[side]} wide in the model, {width} in the adapter"
    return ""


def base_shapes(folder: Path) -> dict[str, list[int]]:
    """Name and shape of each tensor of the model in `folder`."""
    return {name: shape for path in folder.glob("*.safetensors") for name, shape in tensor_shapes(path).items()}


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Name and shape of each tensor, out of a safetensors file's header; no tensor is read.

    The format: 8 bytes of header length (little-endian), the header as JSON, the tensors' bytes up to the last
    `data_offsets`. Raises ValueError if the file is cut short or is none.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise ValueError(f"{path.name} is cut short in its header")
        header = json.loads(file.read(length))
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0) != size:
        raise ValueError(f"{path.name} is cut short")
    return {name: list(entry["shape"]) for name, entry in tensors.items()}


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)
