"""From a checked request to what the engine is asked: token ids, a plan, and how to draw each choice."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError

from moalign.batches import Prompt
from moalign.conditioning import condition
from moalign.data import tokenize_prompts
from moalign.errors import ConfigError, DataError
from moalign.serving.api.refusals import RefusedError
from moalign.serving.api.schema import ChatRequest, CompletionRequest
from moalign.serving.api.service import Service
from moalign.serving.api.wishes import plan_for
from moalign.serving.limits import Limits
from moalign.serving.plan import Plan
from moalign.serving.sampling import Sampling

_DRAWN = 1 << 32  # a drawn seed stays below it, so that every client can say it again
_SEEDS = 1 << 63


@dataclass(frozen=True)
class Ask:
    """The parts of a request, one per prompt: token ids, and a sampling for each choice; `seed` is the first one's."""

    plan: Plan
    seed: int
    parts: Sequence[tuple[list[int], list[Sampling]]]

    @property
    def prompt_tokens(self) -> int:
        """Of all prompts; one with several choices counts once."""
        return sum(len(ids) for ids, _ in self.parts)

    @property
    def choices(self) -> int:
        """Texts to be written."""
        return sum(len(samplings) for _, samplings in self.parts)


def ask_for(service: Service, request: ChatRequest | CompletionRequest) -> Ask:
    """Plan, tokenise and check against the limits. Choice i of every prompt is drawn with seed + i.

    Raises RefusedError (404 for an unknown model, 400 for the rest).
    """
    _check(request, service.limits)
    plan = plan_for(
        service.planner, request.model, request.weights, request.policy, request.divergence, service.default_policy
    )
    if len(plan.rows) > service.limits.slots:
        message = f"this plan takes {len(plan.rows)} slots for each choice, and the server has {service.limits.slots}"
        raise RefusedError(400, message + "; ask for another policy", param="policy", code="too_large")
    seed = request.seed if request.seed is not None else secrets.randbelow(_DRAWN)
    parts = []
    for ids in _tokens(service, request, plan):
        most = _room(len(ids), request, service)
        drawn = [_sampling(request, most, (seed + number) % _SEEDS) for number in range(request.n or 1)]
        parts.append((ids, drawn))
    return Ask(plan, seed, parts)


def _sampling(request: ChatRequest | CompletionRequest, max_tokens: int, seed: int) -> Sampling:
    return Sampling(
        max_tokens=max_tokens,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=seed,
        stop=_stops(request),
        top_logprobs=request.top_logprobs_wanted,
    )


def _stops(request: ChatRequest | CompletionRequest) -> tuple[str, ...]:
    return (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())


def _check(request: ChatRequest | CompletionRequest, limits: Limits) -> None:
    """What does not depend on tokens, before any work is done."""
    if (request.n or 1) > limits.choices:
        raise _over("n", f"n is {request.n}; this server gives at most {limits.choices} choices")
    stops = _stops(request)
    if len(stops) > limits.stops:
        raise _over("stop", f"{len(stops)} stop strings; this server takes at most {limits.stops}")
    if wrong := [len(stop) for stop in stops if not 1 <= len(stop) <= limits.stop_characters]:
        raise _over("stop", f"a stop string has {wrong[0]} characters; expected 1 to {limits.stop_characters}")
    asked = _asked_tokens(request)
    if asked is not None and asked > limits.max_tokens:
        raise _over("max_tokens", f"max_tokens is {asked}; this server writes at most {limits.max_tokens} a choice")
    if isinstance(request, CompletionRequest) and isinstance(request.prompt, list) and request.prompt:
        several = not isinstance(request.prompt[0], int)
        if several and len(request.prompt) > limits.queue:
            raise _over("prompt", f"{len(request.prompt)} prompts; this server takes at most {limits.queue} a request")


def _asked_tokens(request: ChatRequest | CompletionRequest) -> int | None:
    newer = request.max_completion_tokens if isinstance(request, ChatRequest) else None
    return request.max_tokens if newer is None else newer


def _over(param: str, message: str) -> RefusedError:
    return RefusedError(400, message, param=param, code="over_limit")


def _room(prompt: int, request: ChatRequest | CompletionRequest, service: Service) -> int:
    """The most tokens of a choice: what was asked for, else what the context and the server leave."""
    field = "messages" if isinstance(request, ChatRequest) else "prompt"
    context, asked = service.engine.context, _asked_tokens(request)
    room = context - prompt
    if prompt == 0:
        raise RefusedError(400, "the prompt has no tokens; expected at least one", param=field, code="bad_value")
    if room < 1 or (asked is not None and asked > room):
        wanted = "no room for an answer" if asked is None else f"no room for max_tokens = {asked}"
        message = f"the prompt has {prompt} tokens and the base reads {context}, prompt and answer together: {wanted}"
        raise RefusedError(400, message, param=field, code="context_length_exceeded")
    return min(room, service.limits.max_tokens) if asked is None else asked


def _tokens(service: Service, request: ChatRequest | CompletionRequest, plan: Plan) -> list[list[int]]:
    """The ids of each prompt; a plan with a direction has it stated in the text."""
    if isinstance(request, ChatRequest):
        return _encoded(service, [_conversation(request, service)], plan, "messages")
    prompt = request.prompt
    if isinstance(prompt, str):
        return _encoded(service, [prompt], plan, "prompt")
    if not prompt:
        raise RefusedError(400, "prompt is an empty list", param="prompt", code="bad_value")
    if all(isinstance(each, str) for each in prompt):
        return _encoded(service, [str(each) for each in prompt], plan, "prompt")
    rows = [prompt] if isinstance(prompt[0], int) else prompt
    found = [[token for token in row if isinstance(token, int)] for row in rows if isinstance(row, list)]
    known = service.base.model.config.get_text_config().vocab_size
    if any(token >= known for row in found for token in row):
        raise RefusedError(
            400, f"a token id is out of range; expected 0 to {known - 1}", param="prompt", code="bad_value"
        )
    if plan.direction is not None:
        message = "a direction is stated in words, in front of a text; expected the prompt as a string"
        raise RefusedError(400, message, param="prompt", code="bad_value")
    return found


def _conversation(request: ChatRequest, service: Service) -> Prompt:
    if service.base.tokenizer.chat_template is None:
        raise RefusedError(
            400,
            "the base model has no chat template, so it reads no messages; send a prompt to /v1/completions",
            param="messages",
            code="no_chat_template",
        )
    # A developer is what a system was called before; templates know the older word.
    roles = {"developer": "system"}
    return [{"role": roles.get(each.role, each.role), "content": each.text} for each in request.messages]


def _encoded(service: Service, prompts: Sequence[Prompt], plan: Plan, param: str) -> list[list[int]]:
    tokenizer = service.base.tokenizer
    try:
        if plan.direction is not None:
            wording = service.run.config.method_settings.wording(service.run.objectives)
            prompts = [condition(each, plan.direction, wording, tokenizer) for each in prompts]
        return tokenize_prompts(prompts, tokenizer)
    except (ConfigError, DataError) as error:
        raise RefusedError(400, _untold(error, plan), param=param, code="bad_conversation") from error


def _untold(error: BaseException, plan: Plan) -> str:
    """The line for a conversation that the template refuses; that of `error`, for the operator, names a path."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, TemplateError):
        cause = cause.__cause__
    said = f": {cause}" if cause is not None else ": it leaves out system messages"
    stated = ", with the direction that this policy states," if plan.direction is not None else ""
    return f"the base's chat template does not take this conversation{stated} as it is{said}"
