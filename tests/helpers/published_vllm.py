"""A stand-in for vLLM's LoRA resolvers: the names and signatures of its published interface, and nothing else.

As read in the repository vllm-project/vllm:

- vllm/lora/request.py at 8539e44c0b8f879c33114f237b54abc2cfcf69b9: the request's first fields and what it refuses
- vllm/lora/resolver.py at f011f1c3165db05611026767729129094cc50cd7: the resolver and the registry
- vllm/entrypoints/openai/models/serving.py at 4fe4500477d5bbf2c2a467adacc60f7d215cd655: how a server asks resolvers

Later versions give the request and the resolver further fields and methods, all with defaults.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Set
from dataclasses import dataclass, field
from types import ModuleType

import pytest


@dataclass
class LoRARequest:
    """What a resolver returns; equal by name alone in vLLM, but compared whole here."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""

    def __post_init__(self) -> None:
        if self.lora_int_id < 1:
            raise ValueError("lora_int_id must be positive")
        assert self.lora_path, "lora_path must not be empty"


class LoRAResolver(ABC):
    """What a plugin implements."""

    @abstractmethod
    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """The adapter of a name, or None."""


@dataclass
class Registry:
    """Resolvers by name; vLLM asks them in the order in which they were registered."""

    resolvers: dict[str, LoRAResolver] = field(default_factory=dict)

    def get_supported_resolvers(self) -> Set[str]:
        return self.resolvers.keys()

    def register_resolver(self, resolver_name: str, resolver: LoRAResolver) -> None:
        self.resolvers[resolver_name] = resolver

    def get_resolver(self, resolver_name: str) -> LoRAResolver:
        return self.resolvers[resolver_name]


class Server:
    """How vLLM's server uses resolvers: one question per name and life of the server, and its own numbers."""

    def __init__(self, registry: Registry, model: str):
        self.resolvers = [registry.get_resolver(name) for name in registry.get_supported_resolvers()]
        self.model, self.known = model, {}

    async def resolve_lora(self, lora_name: str) -> LoRARequest | None:
        if lora_name in self.known:
            return self.known[lora_name]
        for resolver in self.resolvers:
            request = await resolver.resolve_lora(self.model, lora_name)
            if request is not None:
                request.lora_int_id = len(self.known) + 1
                self.known[lora_name] = request
                return request
        return None


def install(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Put the stand-in where `import vllm...` finds it; the registry that plugins then register with."""
    registry = Registry()
    contents = {
        "vllm": {},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.lora.resolver": {"LoRAResolver": LoRAResolver, "LoRAResolverRegistry": registry},
    }
    for name, names in contents.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    return registry
