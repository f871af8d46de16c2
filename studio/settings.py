"""One Settings object, read once at the start and passed down."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from annotation.errors import UserError
from annotation.types import Frozen


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in the password file, as in some containers
        return "reviewer"


class Prices(Frozen):
    """What a million tokens cost, in any currency; None where nobody said."""

    read: float | None = None
    written: float | None = None

    def of(self, read: float | None, written: float | None) -> float | None:
        """A reply's price; None where a price or a number of tokens is not known."""
        if None in (self.read, self.written, read, written):
            return None
        return ((read or 0) * (self.read or 0) + (written or 0) * (self.written or 0)) / 1_000_000


class Settings(BaseSettings):
    """Everything that can be set, by environment (`TONESMITH_…`) or by an option of the command line."""

    model_config = SettingsConfigDict(env_prefix="TONESMITH_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: user_data_path("tonesmith"))
    """Folder of one project: store, dataset versions, runs, adapters, engine log."""
    cache: Path = Field(default_factory=lambda: user_cache_path("tonesmith"))
    """Folder for prepared base models; safe to delete, made again when needed."""
    store_url: str | None = None
    """Database address; None means a SQLite file in `home`."""
    host: str = "127.0.0.1"
    """Address the page listens on: this machine alone, unless another is given. Whoever opens it has to sign in; put
    HTTPS in front of it where others reach it over a network. The engine listens on this machine alone, whatever this
    is."""
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    public_url: str | None = None
    """Where other machines reach this studio, for example https://tonesmith.example.org. An Argilla that runs
    elsewhere calls there when somebody answered; None means it is asked every 20 seconds instead."""
    base_model: str = "SmolLM2-135M-Instruct"
    """The embedded default, a local folder, or a Hugging Face id."""
    base_revision: str | None = None
    """Revision of a Hugging Face model; None means its newest."""
    engine: Literal["vllm", "scripted"] = "vllm"
    """`vllm`: start and watch vLLM. `scripted`: canned replies, for a look at the page with no engine."""
    engine_url: str | None = None
    """Attach to a vLLM that runs already, for example http://127.0.0.1:8000; None starts our own. A server that takes
    no adapters is there for comparing only."""
    engine_key: str | None = None
    """API key of the engine at `engine_url`, if it wants one."""
    judge_url: str | None = None
    """Another OpenAI-compatible server whose model may judge experiments, for example https://api.example.org; None for
    none."""
    judge_key: str | None = None
    """API key of the server at `judge_url`, if it wants one."""
    judge_model: str | None = None
    """What the model at `judge_url` is called there."""
    price_read: Annotated[float, Field(ge=0)] | None = None
    """What a million tokens read cost, in any currency; None leaves money out of an experiment's figures."""
    price_written: Annotated[float, Field(ge=0)] | None = None
    """The same for a million tokens written."""
    engine_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the engine we start; 0 picks a free one."""
    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """Engines that answer side by side behind one address, each on a GPU of its own, or with its part of the CPU's
    cores. All hold the same adapters."""
    idle_minutes: Annotated[float, Field(gt=0)] | None = None
    """The engine gives its memory back when nobody has asked it for so long, and is there again when somebody asks;
    None means never."""
    max_adapters: Annotated[int, Field(ge=1, le=32)] = 4
    """Adapters held by the engine at once."""
    max_rank: Literal[8, 16, 32, 64, 128] = 32
    """Largest LoRA rank the engine takes; every slot is as large as this."""
    context: Annotated[int, Field(ge=256)] = 2048
    """Longest conversation with its reply, in tokens."""
    person: str = Field(default_factory=_person)
    """Who is judging; written beside every judgement, correction and vote."""

    @property
    def database(self) -> str:
        """The store's address."""
        return self.store_url or f"sqlite:///{self.home / 'tonesmith.db'}"

    @property
    def prices(self) -> Prices:
        return Prices(read=self.price_read, written=self.price_written)

    @property
    def datasets(self) -> Path:
        return self.home / "datasets"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def adapters(self) -> Path:
        return self.home / "adapters"

    @property
    def engine_home(self) -> Path:
        return self.home / "engine"

    @property
    def base_name(self) -> str:
        """The base model's display name: the last part of its id or folder."""
        return Path(self.base_model).name


def read_settings(**options: object) -> Settings:
    """Settings from the environment, with `options` that are not None above it.

    Raises UserError that names the setting at fault; makes the home folder.
    """
    try:
        settings = Settings(**{key: value for key, value in options.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise UserError(
            f"The setting '{name}' is {first['input']!r}: {first['msg']}.",
            do=f"Give another --{name.replace('_', '-')}, or another TONESMITH_{name.upper()}.",
        ) from error
    home = settings.home.expanduser().resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {home} can't be made: {error.strerror}.", do="Choose another --home.") from error
    if not os.access(home, os.W_OK):
        raise UserError(f"The folder {home} can't be written to.", do="Choose another --home.")
    cache = settings.cache.expanduser().resolve()
    return settings.model_copy(update={"home": home, "cache": cache})
