"""What other servers read to load an exported run: a list of adapters, a command that starts them, and a page.

The servers were not run here. What is said of them is by their sources and documentation:

- vLLM: docs/features/lora.md at 05863f1 (--lora-modules name=path, or JSON with base_model_name), vllm/config/lora.py
  at 01230b4 (the ranks that --max-lora-rank takes; max_loras is 1 unless given)
- SGLang: docs/advanced_features/lora.ipynb at 034b3be (--lora-paths name=path; requests name MODEL:ADAPTER)
- LoRAX: docs/models/adapters/index.md and server/lorax_server/utils/sources/local.py at a7394ba (a local adapter_id is
  an absolute path: a relative one is looked for in the hub's cache)

Scripts find the adapters beside themselves, so that the folder may be moved; lists hold paths relative to themselves.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moalign.cards import VLLM_RANKS, fenced, table, text
from moalign.errors import ConfigError

_AT_ONCE = 16  # adapters in one batch, at most: each reserves GPU memory
_MOUNT = "/moalign"


@dataclass(frozen=True)
class Listing:
    """The adapters of an export: the folder of each name, and the largest rank.

    `errors` are what a smaller rank lost, by name; `directions` the texts that prompts have to hold, by the name of the
    point, where the one adapter reads directions. `chats`: the adapters were trained on conversations, not plain texts.
    """

    base: str
    rank: int
    folders: Mapping[str, str]
    errors: Mapping[str, float]
    directions: Mapping[str, str]
    chats: bool


def vllm(listing: Listing) -> dict[str, str]:
    """lora_modules.json, serve.sh and README.md. Raises ConfigError for a rank above all that vLLM takes."""
    rank = next((each for each in VLLM_RANKS if each >= listing.rank), None)
    if rank is None:
        raise ConfigError(f"an adapter has rank {listing.rank}, and vLLM takes {VLLM_RANKS[-1]} at most; give --rank")
    count = len(listing.folders)
    modules = [
        {"name": name, "path": f"./{folder}", "base_model_name": listing.base}
        for name, folder in listing.folders.items()
    ]
    command = [
        'exec vllm serve "${BASE:-$base}" --enable-lora',
        f'--max-lora-rank {rank} --max-loras {min(count, _AT_ONCE)} --max-cpu-loras {count} "$@"',
        "--lora-modules",
    ]
    first = next(iter(listing.folders))
    notes = [
        "`--lora-modules` is read as NAME=PATH: the folder's own path must hold no `=` and no comma.",
        f"vLLM takes only the ranks {', '.join(map(str, VLLM_RANKS))} as `--max-lora-rank`; {rank} is the least that "
        "holds these adapters. Every slot reserves memory for that rank.",
        "`--max-loras` is how many adapters may share a batch (vLLM's default is 1).",
        *([] if listing.directions else ["Trade-offs that are not among these names: see moalign.integrations.vllm."]),
        _list("lora_modules.json"),
    ]
    return {
        "lora_modules.json": json.dumps(modules, indent=2, ensure_ascii=False) + "\n",
        "serve.sh": _script(listing, command),
        "README.md": _page("vLLM", listing, _openai(8000, first, listing.chats), notes),
    }


def sglang(listing: Listing) -> dict[str, str]:
    """lora_paths.json, serve.sh and README.md."""
    count = len(listing.folders)
    paths = [{"lora_name": name, "lora_path": f"./{folder}"} for name, folder in listing.folders.items()]
    command = [
        'exec python3 -m sglang.launch_server --model-path "${BASE:-$base}" --enable-lora',
        f'--max-lora-rank {listing.rank} --max-loras-per-batch {min(count, _AT_ONCE)} "$@"',
        "--lora-paths",
    ]
    first = f"{listing.base}:{next(iter(listing.folders))}"
    notes = [
        "In the OpenAI-compatible routes an adapter is named MODEL:ADAPTER; in `/generate`, by `lora_path`.",
        _list("lora_paths.json"),
    ]
    return {
        "lora_paths.json": json.dumps(paths, indent=2, ensure_ascii=False) + "\n",
        "serve.sh": _script(listing, command),
        "README.md": _page("SGLang", listing, _openai(30000, first, listing.chats), notes),
    }


def lorax(listing: Listing) -> dict[str, str]:
    """adapters.json, serve.sh and README.md: LoRAX loads an adapter when a request names it."""
    ids = [
        {"name": name, "adapter_id": f"{_MOUNT}/{folder}", "adapter_source": "local"}
        for name, folder in listing.folders.items()
    ]
    command = [
        f'exec docker run --gpus all --shm-size 1g -p 8080:80 -v "$here:{_MOUNT}:ro" "$@"',
        'ghcr.io/predibase/lorax:main --model-id "${BASE:-$base}"',
    ]
    body = {"inputs": "...", "parameters": {"adapter_id": ids[0]["adapter_id"], "adapter_source": "local"}}
    notes = [
        f"A local `adapter_id` is an absolute path where the server runs: serve.sh mounts this folder at {_MOUNT}. "
        "Without the container it is the path of this folder.",
        "A base that is a folder must be mounted too: `BASE=/base ./serve.sh -v /path/of/base:/base:ro`.",
        "In the OpenAI-compatible chat route `model` is the `adapter_id`, with `adapter_source` beside it.",
        "LoRAX can merge adapters per request, by averaging factors: that is not the soup of their deltas. Mixtures "
        "are exported here as adapters of their own.",
        "`adapters.json` lists what to send for each, for scripts of your own.",
    ]
    return {
        "adapters.json": json.dumps(ids, indent=2, ensure_ascii=False) + "\n",
        "serve.sh": _script(listing, command, listed=False),
        "README.md": _page("LoRAX", listing, _curl(8080, "/generate", body), notes),
    }


TARGETS: dict[str, Callable[[Listing], dict[str, str]]] = {"vllm": vllm, "sglang": sglang, "lorax": lorax}


def _script(listing: Listing, command: list[str], listed: bool = True) -> str:
    """A shell script that finds the adapters beside itself; BASE replaces the base, other arguments are passed on."""
    adapters = [f'{shlex.quote(name)}="$here"/{shlex.quote(folder)}' for name, folder in listing.folders.items()]
    lines = [
        "#!/bin/sh",
        "# Written by moalign; not run where it was written.",
        'here=$(cd "$(dirname "$0")" && pwd) || exit 1',
        f"base={shlex.quote(listing.base)}",
        " \\\n    ".join([*command, *(adapters if listed else [])]),
    ]
    return "\n".join(lines) + "\n"


def _list(name: str) -> str:
    return f"`{name}` is the same list for scripts of your own, with paths from this folder."


def _openai(port: int, model: str, chats: bool) -> str:
    """A request of OpenAI's; a base may have no chat template where the adapters learned plain texts."""
    if chats:
        return _curl(port, "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "..."}]})
    return _curl(port, "/v1/completions", {"model": model, "prompt": "..."})


def _curl(port: int, path: str, body: Mapping[str, object]) -> str:
    said = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl http://127.0.0.1:{port}{path} -H 'Content-Type: application/json' \\\n    -d {said}"


def _page(server: str, listing: Listing, request: str, notes: list[str]) -> str:
    rows = [
        [text(name), text(folder), f"{100 * listing.errors[name]:.3g} %" if listing.errors[name] else "nothing"]
        for name, folder in listing.folders.items()
    ]
    parts = [
        f"# Adapters for {server}",
        f"LoRA adapters for the base {text(listing.base)}, exported by moalign; the largest rank is {listing.rank}. "
        "Each folder has a card with its recipe and what it attains.",
        table(["name", "folder", "lost by cutting its rank"], rows),
        fenced("./serve.sh", "sh"),
        "`BASE=...` in front names another copy of the base; further arguments are passed on. Then, for one:",
        fenced(request, "sh"),
        "\n".join(f"- {note}" for note in notes),
        *([_directions(listing.directions)] if listing.directions else []),
        f"This was written from {server}'s documentation, and not run with it.",
    ]
    return "\n\n".join(parts) + "\n"


def _directions(directions: Mapping[str, str]) -> str:
    """What prompts say, for an adapter that reads directions."""
    rows = [[text(name), text(said)] for name, said in directions.items()]
    return (
        "The adapter reads a direction, and without one in the prompt it is none of these policies. State it as in "
        "training (settings `template`, `place` and `separator` of the run):\n\n" + table(["point", "text"], rows)
    )
