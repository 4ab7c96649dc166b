"""Telling a policy its direction: the words, and where in the prompt they stand.

Wang et al. 2024, "Arithmetic Control of LLMs for Diverse User Preferences: Directional Preference Alignment with
Multi-Objective Rewards" (arXiv 2402.18571), whose system message this is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedTokenizerBase

from moalign.batches import Messages, Prompt
from moalign.data.tokenize import tokenize_prompts
from moalign.direction import Direction
from moalign.errors import ConfigError, DataError, unknown

TEMPLATE = (
    "You are a helpful, respectful, and honest assistant who always responds to the user in a harmless way. "
    "Your response should maximize weighted rating = {terms}"
)


@dataclass(frozen=True)
class Wording:
    """How a direction is put into words: `template` with its terms, such as helpfulness*71 + verbosity*71.

    `order` has all objectives of the run as the terms stand; `names` says by which word one goes, its own where it has
    none; `scale` times a component, rounded, is its number. A `style` of tally writes the word that often instead, with
    a minus where the number is negative: for bases too small to read numbers. The text stands in a system message, or
    in front of what the user says, with `separator` between it and what else stands there.

    Raises ConfigError for a template without {terms}, no objective or one twice, a name for an unknown one, or one word
    for two.

    >>> paper = Wording(order=("helpful", "long"), names={"helpful": "helpfulness", "long": "verbosity"})
    >>> paper.render(Direction.parse("helpful=1,long=1")).partition(" = ")[2]
    'helpfulness*71 + verbosity*71'
    >>> Wording(("long", "ok"), "{terms}", scale=5, style="tally").render(Direction.parse("long=-3,ok=4"))
    '-long -long -long ok ok ok ok'
    """

    order: tuple[str, ...]
    template: str = TEMPLATE
    names: Mapping[str, str] = field(default_factory=dict)
    scale: int = 100
    style: Literal["numbers", "tally"] = "numbers"
    place: Literal["system", "user"] = "system"
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        if "{terms}" not in self.template:
            raise ConfigError(f"the template {self.template!r} has no {{terms}}, where the weighted objectives stand")
        if not self.order or len(set(self.order)) < len(self.order):
            raise ConfigError(f"order is {', '.join(self.order) or 'empty'}; expected each objective once")
        for name in self.names:
            if name not in self.order:
                raise ConfigError("names: " + unknown("objective", name, self.order))
        words = [self.names.get(name, name) for name in self.order]
        if twice := next((word for word in words if words.count(word) > 1), None):
            raise ConfigError(f"two objectives go by the word {twice!r}; expected a word for each")
        if self.scale < 1:
            raise ConfigError(f"scale is {self.scale}; expected at least 1, so that components do not round to 0")

    def render(self, direction: Direction) -> str:
        """The text for a direction; objectives it does not mention have 0. A half is rounded to the even number.

        Raises PreferenceError, with the near name, for a direction of an objective that is not in `order`.
        """
        numbers = [round(self.scale * component) for component in direction.vector(self.order).tolist()]
        words = [self.names.get(name, name) for name in self.order]
        if self.style == "numbers":
            terms = " + ".join(f"{word}*{n}" for word, n in zip(words, numbers, strict=True))
        else:
            said = (["-" * (n < 0) + word] * abs(n) for word, n in zip(words, numbers, strict=True))
            terms = " ".join(word for each in said for word in each)
        return self.template.replace("{terms}", terms)


def condition(prompt: Prompt, direction: Direction, wording: Wording, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """The prompt that states a direction: `prompt` itself is left as it was.

    A conversation gets a system message, or a second paragraph to the one that it has; where the wording's place is
    the user's, its first message of the user begins with the text. A plain text begins with it in any case. Raises
    ConfigError where the chat template drops or refuses system messages, so that the base would never see them, and
    DataError for a conversation without a message of the user whose place this is.

    >>> from transformers import PreTrainedTokenizerFast
    >>> from tokenizers import Tokenizer, models
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    >>> short = Wording(("helpful", "brief"), "{terms}", scale=10, separator=": ")
    >>> condition("Why?", Direction.parse("helpful=4,brief=3"), short, tokenizer)
    'helpful*8 + brief*6: Why?'
    """
    text = wording.render(direction)
    if isinstance(prompt, str):
        return text + wording.separator + prompt
    if wording.place == "user":
        place = next((number for number, message in enumerate(prompt) if message["role"] == "user"), None)
        if place is None:
            raise DataError("a conversation has no message of the user, in which the direction could stand")
        spoken = prompt[place] | {"content": text + wording.separator + prompt[place]["content"]}
        return [*prompt[:place], spoken, *prompt[place + 1 :]]
    if prompt and prompt[0]["role"] == "system":
        told: Messages = [prompt[0] | {"content": prompt[0]["content"] + wording.separator + text}, *prompt[1:]]
    else:
        told = [{"role": "system", "content": text}, *prompt]
    _check_seen(prompt, told, tokenizer)
    return told


def _check_seen(prompt: Messages, told: Messages, tokenizer: PreTrainedTokenizerBase) -> None:
    """Some chat templates render system messages as nothing, and some raise an error."""
    try:
        before, after = tokenize_prompts([prompt, told], tokenizer)
    except DataError as error:
        raise ConfigError(f"{error}; with place: user the direction stands in the user's message") from error
    if before == after:
        raise ConfigError(
            f"the chat template of {tokenizer.name_or_path!r} leaves out system messages, so the base would never see "
            "a direction; place: user puts it into the user's message"
        )
