"""The card of a merged adapter: its record as a page for people, in the form that a model hub reads."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# vllm/config/lora.py, MaxLoRARanks, as it stood at 01230b4; but for 1, which older versions do not take.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

SOURCES = {
    "measured": "This very policy was measured, by generation and scoring:",
    "calibrated": "By the map from weights to values that was fitted to the run's points:",
    "interpolated": "Interpolated between the measured points around it; the mixture itself was not measured:",
}


def card(name: str, record: Mapping[str, Any]) -> str:
    """The card as Markdown; whatever comes from a config or a path stands there as text, never as markup."""
    base, merged, plan = record["base"], record["merged"], record["plan"]
    parts = [
        _front_matter(base["name"]),
        f"# {text(name)}",
        f"A LoRA adapter of rank {merged['rank']} for {text(base['name'])}, made by moalign "
        f"{text(record['versions']['moalign'])} from a run of method {text(record['method'])}. " + _wish(record),
        "## What it is made of",
        _parents(record),
        *_making(record),
        "## What it attains",
        SOURCES.get(plan["source"], "Nothing is known of what this mixture attains; measure it before use."),
        *([] if plan["source"] not in SOURCES else [_predicted(plan["predicted"])]),
        _told(plan["direction"]),
        _caveat(record) if plan["source"] in SOURCES else "",
        "Each value is the mean of an objective; higher is better in all of them:",
        _objectives(record["objectives"]),
        "## Where it comes from",
        _origin(record),
        "## How to load it",
        _loading(base["name"], merged["rank"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def differs(recipe: Mapping[str, Any], merged: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes a merge another adapter than the exact soup of its parents; nothing does for an exact soup.

    >>> differs({"parents": {"a": 0.5, "b": 0.5}, "merge": "ties", "options": {}}, {"rank": 8, "error": 0.1})
    ('merged by ties', 'cut to rank 8')
    """
    other = recipe["options"] or (len(recipe["parents"]) > 1 and recipe["merge"] != "soup")
    return (
        *([f"merged by {recipe['merge']}"] if other else []),
        *([f"cut to rank {merged['rank']}"] if merged["error"] else []),
    )


def text(value: object) -> str:
    r"""A value as one line of Markdown text: what would be markup, a table cell or an entity is escaped.

    >>> text("a|b *c*\n# d")
    'a\\|b \\*c\\* \\# d'
    """
    return re.sub(r"([\\`*_{}\[\]()<>#!|~&$])", r"\\\1", " ".join(str(value).split()))


def fenced(content: str, language: str = "") -> str:
    """A block of code, with a fence longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the cells are Markdown already."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def number(value: float | None, interval: Sequence[float | None] | None = None) -> str:
    """A value, with its interval where there is one.

    >>> number(1.23456, (1.0, 2.0)), number(None)
    ('1.235 (1 to 2)', 'unknown')
    """
    if value is None:
        return "unknown"
    low, high = interval or (None, None)
    return f"{value:.4g}" + ("" if low is None or high is None else f" ({low:.4g} to {high:.4g})")


def _front_matter(base: str) -> str:
    # A hub checks that base_model is a name of its own: a path would be refused.
    lines = ["---", *([] if Path(base).is_absolute() else [f"base_model: {json.dumps(base)}"])]
    return "\n".join([*lines, "library_name: peft", "tags:", "- lora", "- moalign", "- multi-objective", "---"])


def _wish(record: Mapping[str, Any]) -> str:
    if record["plan"]["direction"] is not None:
        return "It follows the direction that its prompt states: one adapter for all trade-offs."
    wanted = (record["preference"] or {}).items()
    return "Asked for: " + ", ".join(f"{text(name)} {weight:.4g}" for name, weight in wanted) + "." if wanted else ""


def _parents(record: Mapping[str, Any]) -> str:
    names = list(record["objectives"]) if record["measured"] else []
    rows = []
    for key, parent in record["recipe"]["parents"].items():
        found = record["measured"].get(key, {"preference": {}, "values": {}, "intervals": {}})
        wish = ", ".join(f"{text(name)} {weight:.4g}" for name, weight in found["preference"].items() if weight)
        values = [number(found["values"].get(name), found["intervals"].get(name)) for name in names]
        told = "directions" if record["plan"]["direction"] is not None else "unknown"
        rows.append([text(key), f"{parent['weight']:.6g}", wish or told, *values])
    return table(["adapter", "weight", "trained for", *(f"{text(name)} (95 %)" for name in names)], rows)


def _making(record: Mapping[str, Any]) -> list[str]:
    recipe, merged = record["recipe"], record["merged"]
    if len(recipe["parents"]) == 1 and merged["error"] == 0 and not recipe["options"]:
        return ["" if all(part["weight"] == 1 for part in recipe["parents"].values()) else "Scaled by its weight."]
    options = ", ".join(f"{text(name)} {value:g}" for name, value in recipe["options"].items())
    how = f"Merged by {text(recipe['merge'])}{', ' * bool(options)}{options}."
    if merged["distance_from_soup"] is not None:
        how += f" Its distance from the exact soup is {100 * merged['distance_from_soup']:.3g} % of the soup's length."
    if not merged["error"]:
        return [f"{how} Nothing was cut: the delta is the merge's own."]
    worst = merged["worst_layer"]
    return [
        f"{how} Cut to rank {merged['rank']}, it lost {100 * merged['error']:.3g} % of its delta's length "
        f"(Frobenius norm, all layers together); most in {text(worst['name'])}, {100 * worst['error']:.3g} %."
    ]


def _told(direction: Mapping[str, float] | None) -> str:
    if direction is None:
        return ""
    stated = ", ".join(f"{text(name)} {component:.4g}" for name, component in direction.items())
    return f"The adapter reads a direction in its prompt, and these values are with {stated} stated there."


def _caveat(record: Mapping[str, Any]) -> str:
    """Values are known of exact soups, as a bank mixes them: a folder may hold something else."""
    apart = text(" and ".join(differs(record["recipe"], record["merged"])))
    return f"These are values of the exact soup; this adapter was {apart}." if apart else ""


def _predicted(predicted: Mapping[str, Any]) -> str:
    rows = [
        [text(name), number(found["value"], found["interval"]), number(found["standard_error"])]
        for name, found in predicted.items()
    ]
    return table(["objective", "value (95 %)", "standard error"], rows)


def _objectives(objectives: Mapping[str, Any]) -> str:
    rows = []
    for name, settings in objectives.items():
        rest = {key: value for key, value in settings.items() if key != "type"}
        kind = settings.get("type", "learned from its pairs: beta times the log-ratio to the base, in nats")
        rows.append([text(name), text(kind), text(json.dumps(rest, ensure_ascii=False)) if rest else ""])
    return table(["objective", "type", "settings and units"], rows)


def _origin(record: Mapping[str, Any]) -> str:
    base = record["base"]
    shown = {
        "base": base["name"] + (f", digest {base['digest']}" if "digest" in base else ""),
        "data digest": record["data"],
        "seed": record["seed"],
        "versions": ", ".join(f"{name} {number}" for name, number in record["versions"].items()),
    }
    lines = "\n".join(f"- {name}: {text('unknown' if value is None else value)}" for name, value in shown.items())
    return f"{lines}\n\n{fenced(record['command'], 'sh')}"


def _loading(base: str, rank: int) -> str:
    python = (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({base!r})\n"
        'model = PeftModel.from_pretrained(base, "THIS_FOLDER")'
    )
    allowed = next((each for each in VLLM_RANKS if each >= rank), None)
    if allowed is None:
        return fenced(python, "python") + f"\n\nvLLM takes ranks up to {VLLM_RANKS[-1]}: merge with --rank for it."
    vllm = f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {allowed} --lora-modules mine=THIS_FOLDER"
    return fenced(python, "python") + "\n\n" + fenced(vllm, "sh")
