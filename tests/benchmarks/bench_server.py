"""`moalign serve` under load, from outside: speed, first tokens, leaks, and whether every text is what it is alone.

    python tests/benchmarks/bench_server.py [--run runs/demo] [--clients 64] [--seconds 60] [--threads 1] [--quick]
    python tests/benchmarks/bench_server.py --schemathesis 2000

Load: the clients stream, each with random weights, a random prompt of the run and one of several policies; a tenth of
their requests is malformed, a tenth of the others is left before its end, at a random event or while it waits. Reported
are statuses (429 is an answer, 5xx is none), the time to the first token and between two (of texts as they arrive), and
the memory of the server at each quarter of the time (it remembers 4,096 plans, which take 6 MiB: with new weights in
each request they fill up first). Afterwards every slot must be free, and finished texts are asked for again, one at a
time: greedy ones, and those drawn with a seed, are to be the same.

schemathesis: that many cases or more against the server's own OpenAPI document, half of them with models and objectives
that there are. What was answered is counted by the server itself.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import arguments, begin, print_json, print_table
from server_clients import path_of

from moalign.runs import Run

_HERE = Path(__file__).parent
_CALM = 20.0  # seconds in which a server without clients must have freed all slots
_MIB = 1 << 20
_EXAMPLES = 100  # for each operation, in one run of schemathesis


def main() -> None:
    """Run the one or the other, and print what was found."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(threads=1)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="the run to serve (default runs/demo)")
    parser.add_argument("--clients", type=int, default=64, help="that stream at once (default 64)")
    parser.add_argument("--seconds", type=float, help="of load (default 60; quick: 5)")
    parser.add_argument("--alone", type=int, default=400, help="texts asked for again (default 400; quick: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of what the clients do")
    parser.add_argument("--schemathesis", type=int, metavar="CASES", help="this many cases instead of the load")
    options = parser.parse_args()
    if not (options.run / "config.yaml").is_file():
        print(f"{options.run} is no run folder; make one with `moalign demo`, or give another with --run")
        return
    begin(options)
    run = Run.open(options.run)
    if options.schemathesis:
        print_json({"benchmark": "server, schemathesis", **schemathesis(run, options)})
    else:
        print_json({"benchmark": "server, load", **load(run, options)})


@dataclass
class Server:
    """A server in a process of its own."""

    address: str
    http: httpx.Client
    log: Path
    memory: list[tuple[float, float]] = field(default_factory=list)  # seconds, MiB

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels."""
        text = self.http.get("/metrics").text
        pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def busy(self) -> dict[str, float]:
        """Sequences in slots, and requests without one."""
        found = self.metrics()
        return {name: found[f"moalign_{name}"] for name in ("running_sequences", "waiting_requests")}

    def leaked(self) -> dict[str, float]:
        """What is still busy once nobody asks: all 0 if nothing leaks."""
        until = time.monotonic() + _CALM
        while any((found := self.busy()).values()) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def statuses(self) -> dict[str, int]:
        """How many answers of each status it has given, those about itself left out."""
        found: Counter[str] = Counter()
        for name, value in self.metrics().items():
            if told := re.match(r'moalign_responses_total\{path="(.*)",status="(\d+)"\}', name):
                found[told[2]] += int(value) if told[1] not in ("/metrics", "/ready") else 0
        return {status: count for status, count in sorted(found.items()) if count}

    def mistakes(self) -> list[str]:
        """What its log has of its own mistakes, the first few."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "Error" in line or "ERROR" in line][:9]

    def watch(self, begun: float, over: threading.Event) -> None:
        """Note its memory every half second."""
        while not over.wait(0.5):
            resident = self.metrics()["process_resident_memory_bytes"]
            self.memory.append((time.monotonic() - begun, resident / _MIB))


@contextmanager
def serving(run: Run, threads: int, *more: str) -> Iterator[Server]:
    """The command itself on a free port, ready."""
    command = [sys.executable, "-c", "from moalign.cli import main; main()", "serve", str(run.folder), "--port", "0"]
    with tempfile.TemporaryDirectory() as folder, (log := Path(folder) / "log").open("wb") as written:
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen([*command, *more], stderr=written, env=env)
        try:
            address = _address(process, log)
            with httpx.Client(base_url=address, timeout=300) as http:
                http.get("/ready").raise_for_status()  # which answers once the model is loaded
                yield Server(address, http, log)
        finally:
            process.terminate()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    while process.poll() is None:
        if found := re.search(r"listening on (http://\S+)/v1", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"the server did not start: {log.read_text(encoding='utf-8')}")


def prompts_of(run: Run) -> list[Any]:
    """The evaluation prompts, conversations or texts."""
    path = Path(run.config.data.prompts)
    lines = path if path.is_file() else run.folder / "inputs" / path.name
    return [json.loads(line)["prompt"] for line in lines.read_text(encoding="utf-8").splitlines()]


def load(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """The clients' minutes, and then what they were told, asked for again one by one."""
    seconds = options.seconds or (5.0 if options.quick else 60.0)
    job = {"clients": options.clients, "seconds": seconds, "seed": options.seed, "objectives": list(run.objectives)}
    with serving(run, options.threads) as server:
        job |= {"address": server.address, "prompts": prompts_of(run)}
        begun, over = time.monotonic(), threading.Event()
        watching = threading.Thread(target=server.watch, args=(begun, over))
        watching.start()
        told = subprocess.run(
            [sys.executable, str(_HERE / "server_clients.py")],
            input=json.dumps(job).encode(),
            stdout=subprocess.PIPE,
            check=True,
        )
        took = time.monotonic() - begun
        over.set()
        watching.join()
        found, metrics, leaked = json.loads(told.stdout), server.metrics(), server.leaked()
        result = _of_load(found, metrics, server, took) | {"leaked": leaked, "by the server": server.statuses()}
        _print_load(result, options.clients)
        result["mistakes"] = _print_mistakes(server)
        result["alone"] = _again(server, found["texts"], 20 if options.quick else options.alone)
    return result


def _of_load(found: dict[str, Any], metrics: dict[str, float], server: Server, took: float) -> dict[str, Any]:
    statuses, bad = Counter(found["statuses"]), Counter(found["bad"])
    later = np.array([each for each in server.memory if each[0] >= took / 4])
    slope = float(np.polyfit(later[:, 0] / 60, later[:, 1], 1)[0]) if len(later) > 1 else float("nan")
    return {
        "requests": found["requests"],
        "finished": len(found["texts"]),
        "hung up": found["hung_up"],
        "broken streams": found["broken"],
        "statuses": dict(statuses),
        "malformed": dict(bad),
        "5xx": sum(count for each in (statuses, bad) for status, count in each.items() if status.startswith("5")),
        "first token ms": _spread(found["first"]),
        "between tokens ms": _spread(found["gaps"]),
        "tokens per second": metrics["moalign_tokens_total"] / took,
        "occupancy": _ratio(metrics, "batch_occupancy_sum", "steps_total"),
        "prompt tokens reused": _ratio(metrics, "reused_prompt_tokens_total", "prompt_tokens_total"),
        "memory MiB": {**_at_quarters(server.memory), "per minute, from 1/4 on": slope},
    }


def _at_quarters(memory: list[tuple[float, float]]) -> dict[str, float]:
    places = [(len(memory) - 1) * quarter // 4 for quarter in range(1, 5)]
    return {f"at {quarter}/4": memory[place][1] for quarter, place in enumerate(places, start=1)}


def _ratio(metrics: dict[str, float], over: str, under: str) -> float:
    whole = metrics[f"moalign_{under}"]
    return metrics[f"moalign_{over}"] / whole if whole else float("nan")


def _spread(seconds: list[float]) -> dict[str, float]:
    return {f"p{each}": 1e3 * float(np.percentile(seconds, each)) if seconds else float("nan") for each in (50, 95, 99)}


def _print_load(found: dict[str, Any], clients: int) -> None:
    rows = []
    for name, value in found.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        rows += [[f"{name}, {part}" if part else name, each] for part, each in parts]
    print_table(f"{clients} streaming clients", ["", "found"], rows)


def _print_mistakes(server: Server) -> list[str]:
    for line in (found := server.mistakes()):
        print(f"  {line}")
    return found


def _again(server: Server, texts: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Ask for finished texts again, one at a time, spread over the whole load; how many differ."""
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    asked, differ, first = Counter(), Counter(), None
    for number in order:
        then = texts[number]
        body = {key: value for key, value in then["asked"].items() if not key.startswith("stream")}
        reply = server.http.post(path_of(body), json=body).json()
        choice = reply["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        kind = "greedy" if body["temperature"] == 0 else "drawn"
        asked[kind] += 1
        if (text, reply["usage"]["completion_tokens"]) != (then["text"], then["tokens"]):
            differ[kind] += 1
            first = first or {"asked": body, "then": then["text"], "alone": text}
    rows = [[kind, number, differ[kind]] for kind, number in sorted(asked.items())]
    print_table("the same requests alone", ["", "asked", "differ"], rows)
    if first is not None:
        print(f"  the first that differs: {json.dumps(first)}")
    return {"asked": dict(asked), "differ": dict(differ), "first": first}


def schemathesis(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    """Cases against the server's own document, without hooks and with them, until there are as many as were wanted."""
    hooks = {"SCHEMATHESIS_HOOKS": str(_HERE / "server_hooks.py"), "MOALIGN_OBJECTIVES": ",".join(run.objectives)}
    rows, found = [], {}
    for name, env in (("as drawn", {}), ("with names that there are", hooks)):
        with serving(run, options.threads, "--max-tokens", "32", "--slots", "8") as server:
            failed = False
            rounds = 0
            while (sent := sum((statuses := server.statuses()).values())) < options.schemathesis / 2 and not failed:
                failed = not _schemathesis(server, options.seed + rounds, env)
                rounds += 1
            wrong = sum(count for status, count in statuses.items() if status.startswith("5"))
            found[name] = {"cases": sent, "5xx": wrong, "statuses": statuses, "leaked": server.leaked()}
            found[name]["mistakes"] = _print_mistakes(server)
            rows.append([name, sent, wrong, " ".join(f"{status}:{count}" for status, count in statuses.items())])
    print_table("schemathesis", ["", "cases", "5xx", "statuses"], rows)
    return found


def _schemathesis(server: Server, seed: int, env: dict[str, str]) -> bool:
    """One run of it; False, and what it says, if a check failed."""
    command = f"{sys.executable} -m schemathesis.cli run {server.address}/openapi.json --checks not_a_server_error"
    command += f" --phases examples,coverage,fuzzing --max-examples {_EXAMPLES} --seed {seed} --no-color --no-shrink"
    command += " --generation-database none --workers 4 --suppress-health-check all"
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(command.split(), env={**os.environ, **env}, cwd=folder, capture_output=True, text=True)
    if ended.returncode:
        print(ended.stdout + ended.stderr)
    return ended.returncode == 0


if __name__ == "__main__":
    main()
