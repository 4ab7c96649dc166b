"""A base with three random adapters, and prompts for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moalign.adapters import Adapter
from moalign.bank import AdapterBank
from moalign.models import BaseModel, load_base


@pytest.fixture(scope="session")
def served_base(tiny_base: Path) -> BaseModel:
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def bank(served_base: BaseModel, random_adapter: Callable[..., Adapter]) -> Iterator[AdapterBank]:
    adapters = {name: random_adapter(served_base.model, seed, rank=2 + seed) for seed, name in enumerate("abc")}
    with AdapterBank(served_base.model, adapters) as bank:
        yield bank


@pytest.fixture(scope="session")
def prompts(served_base: BaseModel) -> list[list[int]]:
    """Nine prompts of 1 to 41 tokens."""
    texts = ["So: " + "what else is there to say? " * 3, "Why?", "a", "The answer is 42 and", "One two three four five"]
    texts += ["Tell me a story about a fox.", "x" * 41, "Once upon a time", "How do I reset my password?"]
    return [served_base.tokenizer.encode(text[:41], add_special_tokens=False) for text in texts]
