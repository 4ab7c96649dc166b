"""What a server gives to one request, and to all of them together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that hold whatever is asked for; slots, queue, tokens and seconds are options of `moalign serve`.

    `slots` are sequences in one forward pass (n choices take n of them, a decoded plan one per lane), `queue` the
    requests that may wait for slots, `max_tokens` the new tokens of one choice, `choices` the largest n, `stops` the
    stop strings of a request, `stop_characters` the length of each, `body_bytes` the size of a request's body,
    `seconds` the time from its arrival to its last token, and `prefill_tokens` the prompt tokens read between two steps
    of those who are writing already.
    """

    slots: int = 32
    queue: int = 128
    max_tokens: int = 1024
    choices: int = 16
    stops: int = 16
    stop_characters: int = 256
    body_bytes: int = 1 << 20
    seconds: float = 300.0
    prefill_tokens: int = 2048
