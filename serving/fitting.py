"""Whether an adapter fits the base that is served: all that can be told from its files, before it is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from annotation.errors import UserError
from annotation.files import sha256_of
from annotation.types import Frozen
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


class Base(Frozen):
    """The base model that is being served."""

    name: str
    folder: Path
    revision: str | None = None
    max_rank: int = 32
    sha256: str | None = None
    """Hash of its weights; None where that is not known."""


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
    if adapter.base_sha256 and base.sha256 and adapter.base_sha256 != base.sha256:
        raise UserError(
            f"{adapter.name} was trained on other weights of {adapter.base_name} (hash {adapter.base_sha256[:12]}…).",
            f"An adapter of the weights that are served (hash {base.sha256[:12]}…).",
            "Put the model's files back as they were, or train again.",
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
    _check_wording(adapter, base)
    _check_weights(adapter, base)


def _check_wording(adapter: Adapter, base: Base) -> None:
    """The engine takes tokenizer and chat template from the base, whatever lies in the adapter's folder."""
    for what, read in (("tokenizer", tokens), ("chat template", template)):
        own = read(adapter.path)
        if own is not None and own != read(base.folder):
            raise UserError(
                f"{adapter.name} has another {what} than {base.name}.",
                f"The {what} of the model that is served: the engine uses no other.",
                f"Train it with the base model's own {what}, or serve the base that it was trained on.",
            )


def tokens(folder: Path) -> Any:
    """What tells one tokenizer from another, out of `tokenizer.json`; None where there is none that can be read. The
    rest of that file differs from release to release of what wrote it.
    """
    try:
        found = json.loads((folder / "tokenizer.json").read_bytes())
        model = found["model"]
        merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model.get("merges") or ()]
        return (model["vocab"], merges, [(one["id"], one["content"]) for one in found.get("added_tokens") or ()])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def template(folder: Path) -> str | None:
    """The chat template in a folder, None if there is none."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    try:
        found = json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (FileNotFoundError, ValueError, AttributeError):
        return None
    return found.strip() if isinstance(found, str) else None


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
