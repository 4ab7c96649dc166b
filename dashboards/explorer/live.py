"""How texts are asked for, where a server writes them."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Live:
    """How texts are asked for: whether as conversations, the most tokens of one, and those that the page proposes."""

    chat: bool
    max_tokens: int
    usual: int = 128

    @classmethod
    def within(cls, chat: bool, max_tokens: int, context: int) -> "Live":
        """What fits a base that reads `context` tokens, prompt and text together: half of it is left to the prompt.

        >>> Live.within(False, 2048, 32)
        Live(chat=False, max_tokens=31, usual=16)
        """
        return cls(chat, max(1, min(max_tokens, context - 1)), max(1, min(cls.usual, max_tokens, context // 2)))


def live_store(live: Live | None) -> dict[str, Any]:
    """What the page knows of it; explorer.js puts in the address under which the page was opened."""
    base = {"origin": "http://127.0.0.1:8000", "on": live is not None}
    return {**base, **asdict(live or Live(True, 128))}
