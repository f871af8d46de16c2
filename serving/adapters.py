"""Adapters in the running engine: checked, loaded without a restart, remembered, put back after a crash."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from annotation.errors import UserError
from annotation.files import sha256_of
from annotation.types import Frozen
from serving import probe
from serving.client import LOAD, Client
from serving.engine import BASE
from serving.memory import Held, Memory, Parity
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


class AdapterServer:
    """The adapters of one engine, or of several that all hold the same. They forget them when they end; `memory` does
    not.

    `kept()` names the adapters that stay whatever happens, each with what it is ('what customers get'). Raises
    UserError where there is no engine.
    """

    def __init__(
        self,
        engines: Client | Sequence[Client],
        adapters: Path,
        memory: Memory,
        base: Base,
        max_adapters: int,
        kept: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._engines = (engines,) if isinstance(engines, Client) else tuple(engines)
        if not self._engines:
            raise UserError("No engine is ready.", do="Wait until one is: its state is at the top of the page.")
        self._root = adapters
        self._memory = memory
        self._base = base
        self._max = max_adapters
        self._kept = kept

    def loaded(self) -> list[str]:
        """Names that every engine answers to, the base left out. Raises UserError if one does not answer."""
        first, *others = (_held(engine) for engine in self._engines)
        return [name for name in first if all(name in other for other in others)]

    def load(self, name: str) -> Adapter:
        """Check an adapter and load it; loading it again changes nothing.

        Where the engine is full, the adapter used longest ago makes room. Raises NotFound, and UserError for an
        adapter that would be served wrongly or is refused, and where all others are kept.
        """
        with self._memory.lock:
            adapter = self._put_in(name)
            self._memory.note(name)
            self._remember(name)
        return adapter

    def unload(self, name: str) -> None:
        """Take an adapter out; nothing happens if it is not in. Raises UserError for one that is kept."""
        with self._memory.lock:
            if name in self._kept():
                raise UserError(
                    f"{name} is {self._kept()[name]}.",
                    "An adapter that nobody relies on.",
                    "Put another in its place first, or go back to the one before.",
                )
            self._take_out(name)

    def restore(self) -> dict[str, str]:
        """Put back what the engine should hold; returns the problem of each adapter that could not be.

        What is kept comes first, so that nothing else takes its place. Nothing counts as used by this.
        """
        problems = {}
        wanted = self._memory.read().wanted
        for name in dict.fromkeys((*self._kept(), *wanted)):
            try:
                with self._memory.lock:
                    self._put_in(name)
                    if name not in wanted:
                        self._remember(name)
            except UserError as error:
                problems[name] = str(error)
        return problems

    def offer_new(self) -> dict[str, str]:
        """Load each adapter that was never offered before (a run has just finished); returns name and problem or ''."""
        offered = set(self._memory.read().offered)
        found = {}
        for adapter in reversed(registry.all_adapters(self._root)):
            if adapter.name in offered:
                continue
            try:
                self.load(adapter.name)
                found[adapter.name] = ""
            except UserError as error:
                found[adapter.name] = str(error)
                self._offered(adapter.name)
        return found

    def measure(self, name: str, tolerance: float = probe.UNCHANGED) -> float | None:
        """Load `name`, see what it does, and whether it is served as it was trained; both are remembered.

        Returns how far it moves fixed texts from the base, in nats a token: 0 is an adapter that does nothing, which
        may be so and is worth saying. Of several engines the worst counts. None if an engine does not say how likely a
        text is. Raises UserError as `load` does, and if loading it changed a base by more than `tolerance` nats a
        token.
        """
        with self._memory.lock:
            adapter = registry.get(self._root, name)
            new = name not in self.loaded()
            try:
                texts = probe.texts(self._engines[0], adapter)
                bases = befores = [probe.scores(engine, BASE, texts) for engine in self._engines]
            except UserError:
                self.load(name)
                return None
            self.load(name)
            if new:
                bases = [probe.scores(engine, BASE, texts) for engine in self._engines]
                for before, base in zip(befores, bases, strict=True):
                    probe.must_be_unchanged(name, before, base, tolerance)
            return self._see(adapter, texts, bases, tolerance)

    def measure_again(self, name: str, tolerance: float = probe.UNCHANGED) -> float:
        """`measure` for an adapter that is loaded already: this counts as no use of it."""
        with self._memory.lock:
            adapter = registry.get(self._root, name)
            texts = probe.texts(self._engines[0], adapter)
            bases = [probe.scores(engine, BASE, texts) for engine in self._engines]
            return self._see(adapter, texts, bases, tolerance)

    def _see(self, adapter: Adapter, texts: probe.Texts, bases: Sequence[probe.Scores], tolerance: float) -> float:
        effects, parities = [], []
        for engine, base in zip(self._engines, bases, strict=True):
            tuned = probe.scores(engine, adapter.name, texts)
            effects.append(probe.apart(tuned, base))
            parities.append(probe.parity(engine, adapter.scored, base, tuned, tolerance))
        effect, parity = min(effects), _worst(parities)
        self._memory.change(lambda held: _measured(held, adapter.name, effect, parity))
        return effect

    def drift(self, leave: Collection[str] = ()) -> Drift | None:
        """What the engine (one only) holds too little or too much of, against what it should; None while somebody is
        changing that. What is named in `leave` is left as it is.
        """
        (engine,) = self._engines
        if not self._memory.lock.free():
            return None
        held = _held(engine)
        wanted = dict.fromkeys((*self._kept(), *self._memory.read().wanted))
        return Drift(
            lacks=tuple(name for name in wanted if name not in held and name not in leave),
            foreign=tuple(name for name in held if name not in wanted and name not in leave),
        )

    def repair(self, drift: Drift) -> dict[str, str]:
        """Put back what is lacking and take out what is foreign; returns the problem of each that stays so."""
        problems = {}
        with self._memory.lock:
            for name in drift.foreign:
                self._take_out(name)
            for name in drift.lacks:
                try:
                    self._put_in(name)
                except UserError as error:
                    problems[name] = str(error)
        return problems

    def _put_in(self, name: str) -> Adapter:
        """Load it where it is lacking. If one engine refuses, it is not wanted, and `repair` takes it out elsewhere."""
        adapter = registry.get(self._root, name)
        lacking = [engine for engine in self._engines if name not in _held(engine)]
        if lacking:
            check(adapter, self._base)
        for engine in lacking:
            for oldest in self._in_the_way(_held(engine)):
                self._take_out(oldest)
            # Never with load_inplace: vLLM would read the file from disk anew at every step.
            engine.post(LOAD, {"lora_name": name, "lora_path": str(adapter.path.resolve())})
            if name not in _held(engine):
                raise UserError(
                    f"The engine took {name}, but does not list it.", do="Try again, or restart the engine."
                )
        return adapter

    def _take_out(self, name: str) -> None:
        for engine in self._engines:
            if name in _held(engine):
                engine.post("/v1/unload_lora_adapter", {"lora_name": name})
        self._memory.change(
            lambda held: held.model_copy(update={"wanted": tuple(kept for kept in held.wanted if kept != name)})
        )

    def _in_the_way(self, loaded: list[str]) -> list[str]:
        """Which of `loaded` must go so that one more fits: first those nobody here asked for, then the ones used
        longest ago. Raises UserError if too few may go.
        """
        held, kept = self._memory.read(), self._kept()

        def when(name: str) -> tuple[float, int]:
            return (held.used.get(name, 0.0), held.wanted.index(name)) if name in held.wanted else (-1.0, 0)

        may_go = sorted((name for name in loaded if name not in kept), key=when)
        too_many = max(0, len(loaded) - self._max + 1)
        if len(may_go) < too_many:
            taken = ", ".join(f"{name} ({kept[name]})" for name in loaded if name in kept)
            raise UserError(
                f"The engine has no room left: it holds {taken}.",
                "A place for one more adapter.",
                "Make the base alone the candidate for now, or set TONESMITH_MAX_ADAPTERS higher and start again.",
            )
        return may_go[:too_many]

    def _remember(self, name: str) -> None:
        self._memory.change(
            lambda held: held.model_copy(
                update={
                    "wanted": (*(kept for kept in held.wanted if kept != name), name),
                    "offered": _with(held.offered, name),
                }
            )
        )

    def _offered(self, name: str) -> None:
        self._memory.change(lambda held: held.model_copy(update={"offered": _with(held.offered, name)}))


class Drift(Frozen):
    """How what an engine holds differs from what it should hold."""

    lacks: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lacks or self.foreign)

    def told(self, problems: Mapping[str, str]) -> str:
        """What was found and done, in words: 'lacked X; put back'."""
        back = [name for name in self.lacks if name not in problems]
        told = [f"lacked {', '.join(back)}; put back"] if back else []
        told += [f"lacked {name}: {problems[name]}" for name in self.lacks if name in problems]
        told += [f"held {', '.join(self.foreign)}, which it should not; taken out"] if self.foreign else []
        return "; ".join(told)


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


def _held(engine: Client) -> list[str]:
    """Names of the adapters that one engine answers to. Raises UserError."""
    return [name for name in engine.models() if name != BASE]


def _worst(parities: Sequence[Parity | None]) -> Parity | None:
    """Of several engines; None where one could not be told."""
    known = [one for one in parities if one is not None]
    if len(known) < len(parities):
        return None
    return max(known, key=lambda one: (not one.same_prompt, not one.holds, one.apart))


def _measured(held: Held, name: str, effect: float, parity: Parity | None) -> Held:
    others = {other: found for other, found in held.parities.items() if other != name}
    return held.model_copy(
        update={
            "effects": held.effects | {name: effect},
            "parities": others | ({name: parity} if parity else {}),
        }
    )


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names else (*names, name)
