"""The current trade-off as a request that others can send."""

import json
import shlex
from collections.abc import Mapping
from typing import Any


def snippets(weights: Mapping[str, float], policy: str | None, origin: str, chat: bool) -> dict[str, str]:
    """The weights as JSON, and a request with them, as a shell and as Python send it."""
    # Digits, not decimals: where units are wide apart, a weight of 0.00004 may count as much as the others.
    shown = {name: float(f"{weight:.4g}") for name, weight in weights.items()}
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]} if chat else {"prompt": "Hello"}
    extra = {"weights": shown, **({"policy": policy} if policy else {})}
    body = json.dumps({"model": "moalign", **asked, **extra}, ensure_ascii=False)
    path = "chat/completions" if chat else "completions"
    call, text = ("chat.completions", "choices[0].message.content") if chat else ("completions", "choices[0].text")
    given = f"messages={asked['messages']!r}" if chat else "prompt='Hello'"
    python = (
        f"from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{origin}/v1", api_key="unused")\n'
        f'reply = client.{call}.create(\n    model="moalign",\n    {given},\n    extra_body={extra!r},\n)\n'
        f"print(reply.{text})"
    )
    return {
        "weights": json.dumps(shown, ensure_ascii=False),
        "curl": f"curl {origin}/v1/{path} -d {shlex.quote(body)}",
        "python": python,
    }
