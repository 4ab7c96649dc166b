"""Many clients of one server, in a process of their own: streams, hang-ups and nonsense, over plain sockets.

    python tests/benchmarks/server_clients.py < job.json > found.json

The job is {address, clients, seconds, seed, objectives, prompts}. What is found is {requests, texts, statuses, bad,
first, gaps, hung_up, broken}: how many were sent, finished texts with what was asked, statuses of sound and malformed
requests, seconds to the first token and between two, streams that were left, and streams that broke. Plain sockets, so
that the clients take little of the machine.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"
MALFORMED, HANGING_UP, SAMPLED = 0.1, 0.1, 0.25  # shares: of all requests, of the sound ones, of these
_RETRY = 0.25  # seconds until a client that was told to come again does; sooner than it was told
_POLICIES = (None, None, None, None, "nearest", "soup", "decode")
_LINE = 1 << 20


@dataclass
class Found:
    """What the clients saw."""

    requests: int = 0
    texts: list[dict[str, Any]] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    hung_up: int = 0
    broken: int = 0


@dataclass(frozen=True)
class Job:
    """What the clients do."""

    address: str
    clients: int
    seconds: float
    seed: int
    objectives: list[str]
    prompts: list[Any]

    def ask(self, rng: random.Random) -> dict[str, Any]:
        """A sound request: random weights in the field or in the name, a random prompt, policy and length."""
        weights = {name: round(rng.expovariate(1.0) + 0.001, 3) for name in self.objectives}
        prompt, policy = rng.choice(self.prompts), rng.choice(_POLICIES)
        asked: dict[str, Any] = {"model": "moalign", "max_tokens": rng.randint(8, 72), "seed": rng.randrange(1 << 32)}
        asked |= {"messages": prompt} if isinstance(prompt, list) else {"prompt": prompt}
        if rng.random() < 0.5:
            asked["weights"] = weights
        else:
            asked["model"] += "@" + ",".join(f"{name}={weight}" for name, weight in weights.items())
        if policy is not None:
            asked["policy"] = policy
        asked["temperature"] = 1 if rng.random() < SAMPLED else 0
        return {**asked, "stream": True, "stream_options": {"include_usage": True}}


def path_of(asked: dict[str, Any]) -> str:
    """Where a request belongs."""
    return CHAT if "messages" in asked else "/v1/completions"


def message(path: str, body: bytes, kind: str = "application/json") -> bytes:
    """A request as it goes over the wire."""
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def malformed(asked: dict[str, Any], rng: random.Random) -> bytes:
    """A request with one thing wrong, as it goes over the wire."""
    path, name = path_of(asked), next(iter(asked.get("weights", {"weights": 0})))
    wrong: dict[str, Any] = rng.choice(
        [
            {"weights": {"nobody": 1}},
            {"weights": {name: -1}},
            {"weights": {name: 0}},
            {"weights": {f"o{i}": 1 for i in range(1000)}},
            {"model": "nobody"},
            {"model": "moalign@" + "x" * 3000},
            {"n": 0},
            {"stop": ["x"] * 10_000},
            {"max_tokens": 1 << 40},
            {"temperature": "hot"},
            {"policy": "nobody"},
            {"weigths": {}},
            {"messages" if "messages" in asked else "prompt": []},
        ]
    )
    body = json.dumps({**asked, **wrong}).encode()
    return rng.choice(
        [
            message(path, body),
            message(path, body),
            message(path, body),
            message(path, body[: len(body) // 2]),
            message(path, body + b"\xff"),
            message(path, body.replace(b'"seed"', b'"seed": NaN, "top_p"')),
            message(path, body, "text/html"),
            message("/v1/../nowhere\x7f", body),
            b"\x16\x03\x01 no HTTP at all\r\n\r\n",
        ]
    )


async def one_client(job: Job, number: int, until: float, found: Found) -> None:
    """Ask until the time is over; each client draws from a stream of its own."""
    rng = random.Random(f"{job.seed}-{number}")
    while time.monotonic() < until:
        asked = job.ask(rng)
        found.requests += 1
        try:
            if rng.random() < MALFORMED:
                await _nonsense(job, malformed(asked, rng), found)
            elif not await _stream(job, asked, rng.randrange(12) if rng.random() < HANGING_UP else None, found):
                await asyncio.sleep(_RETRY)
        except OSError:
            found.broken += 1


async def _connect(job: Job) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    where = urlsplit(job.address)
    return await asyncio.open_connection(where.hostname, where.port, limit=_LINE)


async def _nonsense(job: Job, sent: bytes, found: Found) -> None:
    reader, writer = await _connect(job)
    try:
        writer.write(sent)
        found.bad[_status(await reader.readline())] += 1
        await reader.read()
    finally:
        writer.close()


async def _stream(job: Job, asked: dict[str, Any], leave_after: int | None, found: Found) -> bool:
    """One request; False if it was told to come again. `leave_after` so many events its client hangs up."""
    begun = last = time.monotonic()
    reader, writer = await _connect(job)
    text, usage, ended, seen = "", None, False, 0
    try:
        writer.write(message(path_of(asked), json.dumps(asked).encode()))
        if leave_after == 0:  # at once, or after a moment in the queue
            await asyncio.sleep(0.02)
            found.hung_up += 1
            return True
        status = _status(await reader.readline())
        found.statuses[status] += 1
        async for line in reader:
            if not line.startswith(b"data: {"):
                ended = ended or line.startswith(b"data: [DONE]")
                continue
            event, now = json.loads(line[6:]), time.monotonic()
            usage = event.get("usage") or usage
            new = "".join(_text(choice) for choice in event.get("choices", []))
            if new:
                (found.gaps if text else found.first).append(now - (last if text else begun))
                last, text = now, text + new
            seen += 1
            if seen == leave_after:
                found.hung_up += 1
                return True
    finally:
        writer.close()
    if status == "200":
        found.broken += not (ended and usage)
        found.texts.append({"asked": asked, "text": text, "tokens": (usage or {}).get("completion_tokens", 0)})
    return status == "200"


def _text(choice: dict[str, Any]) -> str:
    return choice["delta"].get("content", "") if "delta" in choice else choice["text"]


def _status(line: bytes) -> str:
    parts = line.split()
    return parts[1].decode("ascii", "replace") if len(parts) > 1 else "none"


async def _all(job: Job) -> Found:
    found, until = Found(), time.monotonic() + job.seconds
    await asyncio.gather(*(one_client(job, number, until, found) for number in range(job.clients)))
    return found


if __name__ == "__main__":
    json.dump(vars(asyncio.run(_all(Job(**json.load(sys.stdin))))), sys.stdout)
