"""A text as it grows, token by token: whole characters only, and never a part of a stop string."""

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

BROKEN = "\N{REPLACEMENT CHARACTER}"  # how a decoder shows the bytes of a character that is not whole yet


class GrowingText:
    """What may be shown of a text so far.

    `push` takes a token and gives the text that it makes certain; `end` gives what is left. Bytes of an unfinished
    character wait for the rest of it, and text that could be the beginning of a stop string waits until it is not one.
    Once a stop string is complete, `stopped` is True, and the text ends before it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = ()):
        self.stopped = False
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._settled = self._told = 0  # tokens before `settled` are no context any more; those before `told` are told
        self._held = ""

    def push(self, token: int) -> str:
        """The new text that may be shown; it may be empty."""
        self._ids.append(token)
        text = self._new(whole=False)
        return self._show(text) if text else ""

    def end(self) -> str:
        """What was held back; nothing after a stop string."""
        if self.stopped:
            return ""
        shown = self._show(self._new(whole=True))
        return shown if self.stopped else shown + self._held

    def _new(self, whole: bool) -> str:
        # How a token reads can depend on those before it (a space in front of a word), so a few are decoded again.
        before = self._decoded(tuple(self._ids[self._settled : self._told]))
        now = self._decoded(tuple(self._ids[self._settled :]))
        if not whole and now.endswith(BROKEN):
            return ""
        text = now[len(before) :]
        if text:
            self._settled, self._told = self._told, len(self._ids)
        return text

    def _decoded(self, ids: tuple[int, ...]) -> str:
        if not ids:
            return ""
        # One token, and one more with what stands before it, are asked for again and again.
        return (_read if len(ids) <= 2 else _read.__wrapped__)(self._tokenizer, ids, True)

    def _show(self, text: str) -> str:
        if not self._stops:
            return text
        text = self._held + text
        found = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        # The longest end of the text that some stop string begins with.
        longest = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - longest :]
        return text[: len(text) - longest]


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> tuple[str, bytes]:
    """How a token reads by itself, and its bytes: those of a part of a character show as no text."""
    text = _read(tokenizer, (token,), False)
    return text, _bytes(str(tokenizer.convert_ids_to_tokens(token)), text) if BROKEN in text else text.encode()


def _bytes(name: str, text: str) -> bytes:
    """By its name in the vocabulary: <0xC3>, or a letter for each byte, as byte-level tokenizers write them."""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes.fromhex(name[3:5])
    return bytes(map(_LETTERS.__getitem__, name)) if _LETTERS.keys() >= set(name) else text.encode()


def _letters() -> dict[str, int]:
    """Byte-level tokenizers name a byte by its Latin-1 letter if that can be seen, the rest by those from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(0x100) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(0x100 + place): byte for place, byte in enumerate(rest)}


_LETTERS = _letters()


@lru_cache(1 << 14)
def _read(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], skip_special: bool) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=skip_special))


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop string, which is not complete."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
