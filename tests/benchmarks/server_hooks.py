"""For schemathesis: most random requests name a model that there is not, or too much, and would go no further.

MOALIGN_OBJECTIVES has the objectives of the run, with commas between.
"""

import os
from typing import Any

import schemathesis

OBJECTIVES = os.environ["MOALIGN_OBJECTIVES"].split(",")
MODELS = ("moalign", "moalign@" + ",".join(f"{name}={i + 1}" for i, name in enumerate(OBJECTIVES)), "base")


@schemathesis.hook
def map_body(_context: Any, body: Any) -> Any:
    """Give a request a model and objectives that there are, within the server's limits; the rest stays as drawn."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return body
    found = {**body, "model": MODELS[len(repr(body)) % len(MODELS)]}
    if isinstance(body.get("weights"), dict):
        found["weights"] = dict(zip(OBJECTIVES, body["weights"].values(), strict=False))
    for name, most in (("max_tokens", 32), ("max_completion_tokens", 32), ("n", 4)):
        if isinstance(body.get(name), int):
            found[name] = min(body[name], most)
    if not body.get("stream"):
        found.pop("stream_options", None)
    if isinstance(body.get("prompt"), list):
        found["prompt"] = [each % 100 if isinstance(each, int) else each for each in body["prompt"]]
    return found
