"""The card of a reward model: what its heads are, how well they do, and what to know before using them."""

import json
from collections.abc import Mapping
from typing import Any


def card(record: Mapping[str, Any]) -> str:
    """The card as Markdown, from the model's record."""
    heads, rows, base = record["heads"], record["rows"], record["base"]
    name, separator = next(iter(heads)), json.dumps(record["settings"]["separator"])
    shifted = [head for head, found in heads.items() if found["offset"]]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "---",
        "",
        "# Reward model",
        "",
        f"{len(heads)} rewards by regression, heads on `{base['name']}` ({base['architecture']}, digest "
        f"{base['digest'][:12]}), " + _how(record) + ".",
        f"Trained by moalign {record['versions']['moalign']} on {rows['training']} rows (data digest "
        f"{record['data'][:12]}), chosen on {rows['validation']}; {rows['overlong']} rows of more than "
        f"{record['max_length']} tokens were left out.",
        "",
        "As an objective of moalign:",
        "",
        "```yaml",
        f"{name}: {{type: reward_model, model: THIS_FOLDER, column: {name}, separator: {separator}}}",
        "```",
        "",
        f"On {rows['heldout']} rows of held-out prompts:",
        "",
        "| head | label mean ± deviation | rows | R2 | rank correlation | pairwise accuracy | pairs |",
        "|---|---|---|---|---|---|---|",
        *(_row(head, found) for head, found in heads.items()),
    ]
    if shifted:
        lines += [
            "",
            "The heads of this architecture have no bias, so each reward is the label less a constant. R2 is with it "
            "added: " + ", ".join(f"{head} {heads[head]['offset']:+.6g}" for head in shifted) + ".",
        ]
    return "\n".join(lines) + "\n"


def head_lines(heads: Mapping[str, Any]) -> list[str]:
    """A line per head for a terminal: how well it does on held-out rows.

    >>> head_lines({"warm": {"heldout": None}})
    ['  warm  no held-out labels']
    """
    width = max(map(len, heads))
    return [f"  {name.ljust(width)}  {_said(found['heldout'])}" for name, found in heads.items()]


def _said(held: Mapping[str, Any] | None) -> str:
    if held is None:
        return "no held-out labels"
    names = {"r2": "R2", "rank_correlation": "rank correlation", "pairwise_accuracy": "pairs right"}
    shares = "  ".join(f"{text} {_number(held[name]) or 'undefined'}" for name, text in names.items())
    return f"{shares}  ({held['rows']} held-out rows, {_pairs(held)})"


def _how(record: Mapping[str, Any]) -> str:
    if record["steps"] is None:
        return "which was left as it is"
    return f"trained with it for {record['steps']} steps"


def _row(head: str, found: Mapping[str, Any]) -> str:
    cells = [head, f"{found['label_mean']:.4g} ± {found['label_deviation']:.3g}"]
    held = found["heldout"]
    if held is None:
        return "| " + " | ".join([*cells, "0", "", "", "", ""]) + " |"
    shares = [_number(held[name]) for name in ("r2", "rank_correlation", "pairwise_accuracy")]
    return "| " + " | ".join([*cells, str(held["rows"]), *shares, _pairs(held)]) + " |"


def _pairs(held: Mapping[str, Any]) -> str:
    return f"{held['pairs']} pairs {'of one prompt' if held['same_prompt'] else 'of all rows'}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
