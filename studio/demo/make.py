"""How this folder's data was made. A developer's script: nothing in the product imports it.

    python studio/demo/make.py MULTIDOGO            # choose: writes conversations.jsonl (no replies) and held_out.jsonl
    python studio/demo/make.py MULTIDOGO BASE       # the same choice, then the base model's replies

MULTIDOGO is a folder with the corpus' `<trade>.train.tsv` and `<trade>.dev.tsv`; BASE a folder with the base model as
transformers reads it (config.json, tokenizer, safetensors). The choice depends on the corpus, SEED and SKIP alone.
Every reply is drawn with its own seed, so one row can be drawn again; float rounding may still differ between machines.
`charter.toml` and `corrections.jsonl` are written by hand and never touched by this script.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TRADES = ("airline", "fastfood", "finance", "insurance", "media", "software")
PER_TRADE, TWO_TURN, HELD_OUT = 50, 10, 4
"""Conversations a trade, how many of them have two customer messages, and held-out messages a trade."""
SEED = 20190
RICH = 9
"""Words from which a message is taken before shorter ones."""
NEAR = 0.55
"""Share of letter triples above which two messages count as alike."""
MODEL = "SmolLM2-135M-Instruct"
TEMPERATURE, TOP_P, MAX_TOKENS, BATCH = 0.7, 0.95, 120, 16

CHATTER = {"contentonly", "confirmation", "openinggreeting", "closinggreeting", "rejection", "thankyou", "outofdomain"}
"""Intents of utterances that ask for nothing, or whose question (the agent's) is missing from the corpus."""
PERSONAL_SLOTS = {
    *("name", "username", "password", "ssn", "email_address", "phone_number", "phonenumber", "address", "account_id"),
    *("card_number", "account_number", "target_account_number", "booking_confirmation_number", "policyid", "claimid"),
    *("current_zipcode", "new_zipcode", "order_number"),
}
# The corpus has lost its punctuation, so an e-mail address reads `anngmailcom`; letters dealt one by one spell a code.
PERSONAL_TEXT = re.compile(
    r"\d{3}|@|\w(mail|yahoo|outlook|live|mac)\s?com\b|\bmail\s?com\b|\bmy (full |last |first )?name\b|\bmyself\b"
    r"|\bname is\b|(\b[a-z0-9] ){3}|\bssn\b.*\d|\bpassword is\b"
)
# Names the corpus' agents go by, and openings of an answer to something the agent said: without the agent's turn
# neither makes sense.
AGENT_NAMES = re.compile(
    r"\b(alex|andy|cameron|casey|charlie|chris|cody|drew|jamie|jesse|jordan|kai|kelly|lindsay|max|morgan|pat|quinn|riley|"
    r"robin\w*|sam|spencer|taylor|tyler|madam|mam|maam|siri?)\b"
)
MID_DIALOGUE = re.compile(
    r"^(actually|add|amm|and|any|awesome|because|bring|but|definitely|final|fine|forget|great|hmm|i mean|instead|kk|"
    r"my bad|nevermind|no|nope|oh|oka?y?\w*|perfect|please also|r|same|so|sorry|sure|thank|thanks|thats|that|then|this|"
    r"wait|well|with|wonderful|yeah|yep|yes|you cannot|your)\b"
    r"|\bi (mean|said|told)\b|\balso\b|thank you for asking|\bother data\b"
)
QUESTION = re.compile(r"\b(what|how|when|where|why|which|can i|could i|may i|do you|is there|are there|is it)\b")
SMALL_TALK = re.compile(
    r"your time|talk|chat|\b(hold|glad|sorry|glitch|r u|are you there|confus|thats everything|nothing)\b"
)
SKIP = frozenset(
    {
        "2d8d59b2-ee64-46ca-8499-d6de49642164",
        "8831537c-5d55-4ccb-b28c-c94762161110",
        "872549d9-595b-4dac-afea-d4c9a857b33c",
        "a4422ee2-bba7-43a2-bb57-9aa7c44b2dab",
        "fb7bb7e5-3877-46e4-9dfc-2d41d7f035e6",
    }
)
"""Conversations left out after reading: the chosen message names a person or cannot be understood on its own."""


@dataclass(frozen=True)
class Utterance:
    """One customer utterance, white space put right."""

    conversation: str
    text: str
    slots: frozenset[str]
    intents: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Four to forty-five words, and no personal detail that labels or patterns can see."""
        words = len(self.text.split())
        return (
            4 <= words <= 45
            and not self.slots & PERSONAL_SLOTS
            and not PERSONAL_TEXT.search(self.text.lower())
            and not AGENT_NAMES.search(self.text.lower())
        )

    @property
    def opens(self) -> bool:
        """Can stand first: a request of five words or more that answers nothing said before."""
        return (
            self.clean
            and len(self.text.split()) >= 5
            and not CHATTER & set(self.intents)
            and not MID_DIALOGUE.search(self.text.lower())
        )

    @property
    def follows(self) -> bool:
        """Can stand second: a request, or a question outside the corpus' intents."""
        if not self.clean or SMALL_TALK.search(self.text.lower()) or (CHATTER - {"outofdomain"}) & set(self.intents):
            return False
        return "outofdomain" not in self.intents or bool(QUESTION.search(self.text.lower()))


FILLER = frozenset(
    re.findall(
        r"\w+",
        "a an the my for of to i im id hi hello hey hai good morning can could you your please help me in on is it "
        "would like want wants wanted wanna need needs with and do have help kindly just so know",
    )
)


def normal(text: str) -> frozenset[str]:
    """What a message is about: the letter triples of its words, case folded, without filler and word order.

    Triples, because the customers' spelling varies more than their requests do.
    """
    words = re.findall(r"[a-z0-9]+", text.casefold())
    told = sorted({word for word in words if word not in FILLER}) or words
    return frozenset(f" {word} "[i : i + 3] for word in told for i in range(len(word)))


def near(a: frozenset[str], b: frozenset[str], limit: float) -> bool:
    """Whether two messages share more than `limit` of their letter triples (Jaccard)."""
    return len(a & b) > limit * len(a | b)


def read_trade(folder: Path, trade: str) -> dict[str, list[Utterance]]:
    """Conversations of a trade, utterances in the order of the file (which is that of the conversation)."""
    found: dict[str, list[Utterance]] = defaultdict(list)
    for split in ("train", "dev"):
        with (folder / f"{trade}.{split}.tsv").open(newline="", encoding="utf-8") as file:
            # Quoted fields may hold line breaks and doubled quotes; the csv module undoes both.
            for row in csv.DictReader(file, delimiter="\t"):
                text = " ".join(row["utterance"].split())
                slots = frozenset(row["slot-labels"].split())
                intents = tuple(row["intent"].split("<div>"))
                found[row["conversationId"]].append(Utterance(row["conversationId"], text, slots, intents))
    return dict(found)


def cut(utterances: list[Utterance]) -> list[Utterance]:
    """The first request of at least RICH words, or the first request, and one that comes after it; [] if none fits."""
    opening = [i for i, u in enumerate(utterances) if u.opens]
    if not opening:
        return []
    start = next((i for i in opening if len(utterances[i].text.split()) >= RICH), opening[0])
    first = utterances[start]
    later = [u for u in utterances[start + 1 :] if u.follows and not near(normal(u.text), normal(first.text), 0.3)]
    return [first, *later[:1]]


def candidates(conversations: dict[str, list[Utterance]], rng: random.Random) -> Iterator[list[Utterance]]:
    """Usable conversations, richer ones before short ones, intents taking turns so that rare ones are seen."""
    found = [parts for id_, said in sorted(conversations.items()) if id_ not in SKIP and (parts := cut(said))]
    rng.shuffle(found)
    for rich in (True, False):
        by_intent: dict[str, list[list[Utterance]]] = defaultdict(list)
        for parts in found:
            if (len(parts[0].text.split()) >= RICH) is rich:
                by_intent[parts[0].intents[0]].append(parts)
        while groups := [by_intent[intent] for intent in sorted(by_intent) if by_intent[intent]]:
            yield from (group.pop() for group in groups)


def choose(folder: Path, trade: str) -> tuple[list[list[Utterance]], list[Utterance]]:
    """PER_TRADE conversations (TWO_TURN of them with two messages) and HELD_OUT messages, no two nearly alike."""
    rng = random.Random(f"{SEED}-{trade}")
    taken: list[frozenset[str]] = []
    single: list[list[Utterance]] = []
    double: list[list[Utterance]] = []
    for parts in candidates(read_trade(folder, trade), rng):
        words = normal(parts[0].text)
        if any(near(words, other, NEAR) for other in taken):
            continue
        if len(parts) == 2 and len(double) < TWO_TURN:
            double.append(parts)
        elif len(single) < PER_TRADE - TWO_TURN + HELD_OUT:
            single.append(parts[:1])
        else:
            continue
        taken.append(words)
    rng.shuffle(single)
    chosen = [*single[HELD_OUT:], *double]
    if len(chosen) != PER_TRADE:
        raise SystemExit(f"{trade}: only {len(chosen)} conversations fit; {PER_TRADE} are wanted.")
    rng.shuffle(chosen)
    return chosen, [parts[0] for parts in single[:HELD_OUT]]


def title(text: str) -> str:
    """The first 60 characters, cut at a word."""
    return text if len(text) <= 60 else text[:59].rsplit(" ", 1)[0] + "…"


def select(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of conversations.jsonl (customers' messages alone) and of held_out.jsonl, trade by trade."""
    rows, held_out = [], []
    for trade in TRADES:
        chosen, held = choose(folder, trade)
        for parts in chosen:
            said = [{"role": "user", "text": part.text, "origin": "multidogo"} for part in parts]
            row = {"external_id": parts[0].conversation, "trade": trade, "title": title(parts[0].text)}
            rows.append({**row, "messages": said})
        held_out += [{"external_id": one.conversation, "trade": trade, "text": one.text} for one in held]
    return rows, held_out


def seed_of(external_id: str, turn: int) -> int:
    """The seed of one reply: 31 bits of a hash, so that rows do not depend on their order."""
    return int.from_bytes(hashlib.sha256(f"{SEED}:{external_id}:{turn}".encode()).digest()[:4], "big") >> 1


class Writer:
    """The base model under transformers, in float32: replies to a batch, each row with a generator of its own."""

    def __init__(self, base: Path, threads: int = 2) -> None:
        # Heavy, and wanted here alone: the product never runs this script.
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        self.stop = self.tokenizer.convert_tokens_to_ids("<|im_end|>")

    def draw(self, logits: Any, generator: Any) -> int:
        """One token from a row of logits: temperature, then the smallest set of tokens that holds TOP_P."""
        probabilities, order = self.torch.softmax(logits / TEMPERATURE, -1).sort(descending=True)
        before = probabilities.cumsum(-1) - probabilities
        kept = probabilities * (before < TOP_P)
        return int(order[self.torch.multinomial(kept, 1, generator=generator)])

    def write(self, chats: list[list[dict[str, str]]], seeds: list[int]) -> list[dict[str, Any]]:
        """One assistant message a chat, with its provenance; `seconds` runs from the start of the batch."""
        with self.torch.inference_mode():
            return self._write(chats, seeds)

    def _write(self, chats: list[list[dict[str, str]]], seeds: list[int]) -> list[dict[str, Any]]:
        torch, start = self.torch, time.perf_counter()
        prompts = self.tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
        batch = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        tokens, mask, cache = batch["input_ids"], batch["attention_mask"], None
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        said: list[list[int]] = [[] for _ in chats]
        seconds: list[float | None] = [None] * len(chats)
        stopped = [False] * len(chats)
        for _ in range(MAX_TOKENS):
            out = self.model(tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            drawn = [self.draw(row, g) for row, g in zip(out.logits[:, -1], generators, strict=True)]
            for i, token in enumerate(drawn):
                if seconds[i] is not None:
                    continue
                stopped[i] = token == self.stop
                if not stopped[i]:
                    said[i].append(token)
                if stopped[i] or len(said[i]) == MAX_TOKENS:
                    seconds[i] = round(time.perf_counter() - start, 3)
            if None not in seconds:
                break
            tokens = torch.tensor(drawn)[:, None]
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
            positions = positions[:, -1:] + 1
        return [
            message(
                self.tokenizer.decode(ids, skip_special_tokens=True).strip(), seed, took, "stop" if ended else "length"
            )
            for ids, seed, took, ended in zip(said, seeds, seconds, stopped, strict=True)
        ]


def message(text: str, seed: int, seconds: float | None, finish: str) -> dict[str, Any]:
    """An assistant message in the shape of annotation.types (Message and Provenance), marked as generated."""
    sampling = {"temperature": TEMPERATURE, "top_p": TOP_P, "max_tokens": MAX_TOKENS, "seed": seed}
    provenance = {"model": MODEL, "sampling": sampling, "seconds": seconds, "finish": finish}
    return {"role": "assistant", "text": text, "origin": "generated", "provenance": provenance}


def reply(rows: list[dict[str, Any]], writer: Writer) -> None:
    """Give every customer message in `rows` its reply, in place; a second message sees the first reply."""
    asked = [[one for one in row["messages"] if one["role"] == "user"] for row in rows]
    for row in rows:
        row["messages"] = []
    for turn in range(2):
        # Like lengths in one batch: less padding.
        due = sorted(
            (i for i, said in enumerate(asked) if len(said) > turn), key=lambda i: len(str(rows[i]["messages"]))
        )
        for start in range(0, len(due), BATCH):
            part = due[start : start + BATCH]
            for i in part:
                rows[i]["messages"].append(asked[i][turn])
            chats = [[{"role": m["role"], "content": m["text"]} for m in rows[i]["messages"]] for i in part]
            written = writer.write(chats, [seed_of(rows[i]["external_id"], turn) for i in part])
            for i, answer in zip(part, written, strict=True):
                rows[i]["messages"].append(answer)
            print(f"turn {turn + 1}: {start + len(part)} of {len(due)}", flush=True)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("multidogo", type=Path)
    parser.add_argument("base", type=Path, nargs="?", help="Without it no replies are written.")
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    rows, held_out = select(given.multidogo)
    if given.base is not None:
        reply(rows, Writer(given.base))
    write_jsonl(given.out / "conversations.jsonl", rows)
    write_jsonl(given.out / "held_out.jsonl", held_out)


if __name__ == "__main__":
    main()
