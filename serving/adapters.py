"""Adapters in the running engine: checked, loaded without a restart, remembered, put back after a crash."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from annotation.errors import UserError
from annotation.types import Frozen
from serving import probe
from serving.client import LOAD, Client
from serving.engine import BASE
from serving.fitting import Base, check
from serving.leaving import UNLOAD
from serving.memory import Held, Memory, Parity
from serving.stand_in import is_stand_in
from training import registry
from training.types import Adapter

BASES_KEPT = 16
"""Of how many addresses it is remembered what their base says."""
Said = tuple[tuple[float, ...], ...]


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
        first, *others = (held(engine) for engine in self._engines)
        return [name for name in first if all(name in other for other in others)]

    def at_hand(self) -> list[str]:
        """Names that can be asked for."""
        return self.loaded()

    def ensure_there(self, name: str) -> None:
        """Put `name` back where it is lacking; this counts as no use of it. Raises UserError as `load`."""
        adapter = registry.get(self._root, name)
        if not all(self._holds(engine, adapter) for engine in self._engines):
            with self._memory.lock:
                self._put_in(name)

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
        self._note_bases()
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
                with self._memory.lock:
                    self._put_in(adapter.name, urgent=False)
                    self._memory.note(adapter.name)
                    self._remember(adapter.name)
                found[adapter.name] = ""
            except UserError as error:
                found[adapter.name] = str(error)
                self._offered(adapter.name)
        return found

    def measure(self, name: str, tolerance: float = probe.UNCHANGED) -> float | None:
        """Load `name`, see what it does, and whether it is served as it was trained; both are remembered.

        Returns how far it moves fixed texts from the base, in nats a token: 0 is an adapter that does nothing, which
        may be so and is worth saying. Of several engines the worst counts. None if an engine does not say how likely a
        text is. Raises UserError as `load` does, and, with the adapter taken out again, if loading it changed a base by
        more than `tolerance` nats a token, or if it is not served as it was trained (Unsound).
        """
        with self._memory.lock:
            adapter = registry.get(self._root, name)
            new = name not in self.loaded()
            try:
                texts = probe.texts(self._engines[0], adapter)
                befores = self._bases(texts)
            except UserError:
                self.load(name)
                return None
            self.load(name)
            return self._see(adapter, texts, befores if new else (), tolerance)

    def measure_again(self, name: str, tolerance: float = probe.UNCHANGED) -> float:
        """`measure` for an adapter that is loaded already: this counts as no use of it. What people rely on stays in,
        whatever is found.
        """
        with self._memory.lock:
            adapter = registry.get(self._root, name)
            texts = probe.texts(self._engines[0], adapter)
            known = self._memory.read().bases
            befores = [known[engine.base_url] for engine in self._engines if engine.base_url in known]
            comparable = not adapter.scored and len(befores) == len(self._engines)  # else training says what it said
            return self._see(adapter, texts, befores if comparable else (), tolerance)

    def _see(self, adapter: Adapter, texts: probe.Texts, befores: Sequence[probe.Scores], tolerance: float) -> float:
        """`befores`: what each base said before the adapter came, where that is known."""
        effect, parity = self._compared(adapter, texts, tolerance)
        if parity and not parity.holds:  # once more: what an engine says while it is busy may be a moment's
            effect, parity = self._compared(adapter, texts, tolerance)
        bases = self._bases(texts) if befores else ()
        moved = max((probe.apart(*both) for both in zip(bases, befores, strict=True)), default=0.0)
        if moved > tolerance:
            parity = Parity(apart=moved, same_prompt=True, holds=False)
        self._memory.change(lambda held: _measured(held, adapter.name, effect, parity))
        try:
            probe.must_be_unchanged(adapter.name, moved, tolerance)
            probe.must_hold(adapter.name, parity)
        except probe.Unsound:
            if adapter.name not in self._kept():
                self._take_out(adapter.name)
            raise
        return effect

    def _compared(self, adapter: Adapter, texts: probe.Texts, tolerance: float) -> tuple[float, Parity | None]:
        effects, parities = [], []
        for engine, base in zip(self._engines, self._bases(texts), strict=True):
            tuned = probe.scores(engine, adapter.name, texts)
            effects.append(probe.apart(tuned, base))
            parities.append(probe.parity(engine, adapter.scored, base, tuned, tolerance))
        return min(effects), _worst(parities)

    def _bases(self, texts: probe.Texts) -> list[probe.Scores]:
        return [probe.scores(engine, BASE, texts) for engine in self._engines]

    def _note_bases(self) -> None:
        """Remember what each base says that has no adapter beside it yet."""
        found = {}
        for engine in self._engines:
            try:
                if not held(engine):
                    said = probe.scores(engine, BASE, probe.fixed(engine))
                    found[engine.base_url] = tuple(tuple(text) for text in said)
            except UserError:  # it does not say how likely a text is
                continue
        if found:
            self._memory.change(lambda known: known.model_copy(update={"bases": _newest(known.bases | found)}))

    def drift(self, leave: Collection[str] = (), guests: bool = False) -> Drift | None:
        """What the engine (one only) holds too little or too much of, against what it should; None while somebody is
        changing that. What is named in `leave` is left as it is; with `guests`, so is what somebody else loaded, while
        there is room.
        """
        (engine,) = self._engines
        if not self._memory.lock.free():
            return None
        there = held(engine)
        wanted = self._wanted()
        foreign = [name for name in there if name not in wanted and name not in leave]
        if guests:
            foreign = foreign[: max(0, len(there) - self._max)]
        return Drift(
            lacks=tuple(name for name in wanted if name not in there and name not in leave), foreign=tuple(foreign)
        )

    def repair(self, drift: Drift) -> dict[str, str]:
        """Put back what is lacking and take out what is foreign; returns the problem of each that stays so."""
        problems = {}
        with self._memory.lock:
            for name in drift.foreign:
                self._take_out(name)
            for name in drift.lacks:
                try:
                    self._put_in(name, urgent=False)
                except UserError as error:
                    problems[name] = str(error)
        return problems

    def _wanted(self) -> dict[str, None]:
        """What the engine should hold, what is kept first."""
        return dict.fromkeys((*self._kept(), *self._memory.read().wanted))

    def _holds(self, engine: Client, adapter: Adapter) -> bool:
        return adapter.name in held(engine)

    def _put_in(self, name: str, urgent: bool = True) -> Adapter:
        """Load it where it is lacking. If one engine refuses, it is not wanted, and `repair` takes it out elsewhere.

        What is not `urgent` may be left out where no room can be made for it (`_make_room`).
        """
        adapter = registry.get(self._root, name)
        lacking = [engine for engine in self._engines if not self._holds(engine, adapter)]
        if lacking:
            check(adapter, self._base)
        for engine in lacking:
            probe.must_word_alike(engine, adapter)
            if not self._make_room(engine, urgent):
                continue
            # Never with load_inplace: vLLM would read the file from disk anew at every step.
            engine.post(LOAD, {"lora_name": name, "lora_path": str(adapter.path.resolve())})
            if not self._holds(engine, adapter):
                raise UserError(
                    f"The engine took {name}, but does not list it.", do="Try again, or restart the engine."
                )
        return adapter

    def _make_room(self, engine: Client, urgent: bool) -> bool:
        """Have one more adapter fit into `engine`; whether it does. Raises UserError if it never will."""
        for oldest in self._in_the_way(list(held(engine))):
            self._take_out(oldest)
        return True

    def _take_out(self, name: str) -> None:
        for engine in self._engines:
            if name in held(engine):
                engine.post(UNLOAD, {"lora_name": name})
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._memory.change(
            lambda held: held.model_copy(update={"wanted": tuple(kept for kept in held.wanted if kept != name)})
        )

    def _in_the_way(self, loaded: list[str]) -> list[str]:
        """Which of `loaded` must go so that one more fits: first those nobody here asked for, then the ones used
        longest ago. Raises UserError if too few may go.
        """
        known, kept = self._memory.read(), self._kept()

        def when(name: str) -> tuple[float, int]:
            return (known.used.get(name, 0.0), known.wanted.index(name)) if name in known.wanted else (-1.0, 0)

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


def held(engine: Client) -> dict[str, str]:
    """The adapters that one engine answers to, each with the folder it came from. Raises UserError."""
    return {name: folder for name, folder in engine.adapters().items() if not is_stand_in(name)}


def _newest(bases: dict[str, Said]) -> dict[str, Said]:
    """A restarted engine may have another address, and the ones before are of no use."""
    return dict(list(bases.items())[-BASES_KEPT:])


def _worst(parities: Sequence[Parity | None]) -> Parity | None:
    """Of several engines; None where one could not be told."""
    known = [one for one in parities if one is not None]
    if len(known) < len(parities):
        return None
    return max(known, key=lambda one: (not one.same_prompt, not one.holds, not one.told, one.apart))


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
