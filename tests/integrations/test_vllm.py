"""The resolver against vLLM's published interface: vLLM itself has not been run here."""

import asyncio
import importlib.util
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published_vllm
import pytest
import torch
from made_runs import made_run, point
from published_vllm import LoRARequest, LoRAResolver, Registry, Server
from transformers import PreTrainedModel

from moalign.adapters import Adapter, read_adapter
from moalign.errors import ConfigError, RunError
from moalign.integrations import vllm
from moalign.integrations.vllm import Merges, register, same_base
from moalign.merging import compress, soup

BETWEEN = "moalign@warm=0.4,brief=0.6"  # 0.8 of m and 0.2 of b


@pytest.fixture
def three(llama: PreTrainedModel, random_adapter: Callable[..., Adapter]) -> dict[str, Adapter]:
    return {key: random_adapter(llama, seed, rank=3, only="attn") for seed, key in enumerate("wmb")}


@pytest.fixture
def folder(tmp_path: Path, three: dict[str, Adapter]) -> Path:
    return made_run(tmp_path / "run", adapters=three).folder


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> Registry:
    """vLLM's registry, and the environment of a server of this run."""
    for name in [name for name in os.environ if name.startswith("MOALIGN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MOALIGN_RUN", str(folder))
    monkeypatch.setenv("MOALIGN_MAX_LORA_RANK", "4")
    monkeypatch.setenv("MOALIGN_LORA_CACHE", str(tmp_path / "cache"))
    return published_vllm.install(monkeypatch)


def ask(registry: Registry, *names: str, base: str = "org/base") -> list[LoRARequest | None]:
    """What one server that is asked for these names, all at once, finds."""
    server = Server(registry, base)

    async def all_of_them() -> list[LoRARequest | None]:
        return list(await asyncio.gather(*(server.resolve_lora(name) for name in names)))

    return asyncio.run(all_of_them())


# The interface


def test_the_resolver_has_the_published_name_arguments_and_base(registry: Registry) -> None:
    """vllm/lora/resolver.py at f011f1c: async resolve_lora(self, base_model_name, lora_name)."""
    register()
    resolver = registry.get_resolver("moalign")
    assert isinstance(resolver, LoRAResolver)
    method = resolver.resolve_lora
    assert inspect.iscoroutinefunction(method)
    assert list(inspect.signature(method).parameters) == ["base_model_name", "lora_name"]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_stand_in_is_what_is_installed() -> None:
    """Where vLLM is there after all, its names and arguments are those of the stand-in."""
    request = importlib.import_module("vllm.lora.request").LoRARequest
    resolver = importlib.import_module("vllm.lora.resolver")
    assert list(inspect.signature(request).parameters)[:3] == list(inspect.signature(LoRARequest).parameters)
    for ours, theirs in (
        (LoRAResolver.resolve_lora, resolver.LoRAResolver.resolve_lora),
        (Registry.register_resolver, type(resolver.LoRAResolverRegistry).register_resolver),
    ):
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_without_a_run_nothing_is_registered_or_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """moalign may be installed beside a vLLM that has nothing to do with it."""
    monkeypatch.delenv("MOALIGN_RUN", raising=False)
    monkeypatch.setitem(sys.modules, "vllm", None)  # an import would raise
    register()


def test_registering_twice_does_no_harm_and_makes_no_folder(registry: Registry, tmp_path: Path) -> None:
    """vLLM loads plugins in each of its processes, and asks that they bear it."""
    register()
    register()
    assert list(registry.get_supported_resolvers()) == ["moalign"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MOALIGN_RUN", "nowhere", "nowhere is not a run folder"),
        ("MOALIGN_MAX_LORA_RANK", "sixteen", "MOALIGN_MAX_LORA_RANK is 'sixteen'; expected a whole number"),
        ("MOALIGN_MAX_LORA_RANK", "0", "MOALIGN_MAX_LORA_RANK is '0'"),
        ("MOALIGN_LORA_CACHE_SIZE", "²", "MOALIGN_LORA_CACHE_SIZE is '²'"),
    ],
)
def test_variables_that_cannot_be_followed_end_the_start(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises((RunError, ConfigError), match=message):
        register()


# What it finds


def test_a_trade_off_is_the_soup_of_its_neighbours_at_the_rank_of_the_server(
    registry: Registry, three: dict[str, Adapter], tmp_path: Path
) -> None:
    register()
    [found] = ask(registry, BETWEEN)
    assert found is not None
    assert found.lora_name == BETWEEN
    assert Path(found.lora_path).parent == tmp_path / "cache"
    layers = read_adapter(Path(found.lora_path)).layers
    expected = compress(soup([three["m"], three["b"]], [0.8, 0.2]), 4).adapter.layers
    assert {layer.rank for layer in layers.values()} == {4}
    for name, layer in expected.items():
        torch.testing.assert_close(layers[name].delta(), layer.delta(), rtol=1e-4, atol=1e-5)


def test_the_same_trade_off_is_one_folder_and_one_number_however_it_is_written(registry: Registry) -> None:
    """The number is made from the contents: positive, below 2^31, the same in every process."""
    register()
    resolver = registry.get_resolver("moalign")
    names = (BETWEEN, "moalign@brief=6,warm=4", "moalign@warm=1")
    found = [asyncio.run(resolver.resolve_lora("org/base", name)) for name in (*names, BETWEEN)]
    numbers, paths = [each and each.lora_int_id for each in found], [each and each.lora_path for each in found]
    assert numbers[0] == numbers[1] == numbers[3] != numbers[2]
    assert paths[0] == paths[1] == paths[3] != paths[2]
    assert all(isinstance(number, int) and 0 < number < 2**31 for number in numbers)


@pytest.mark.parametrize("name", ["other", "moalign", "Moalign@warm=1", "", "../../etc"])
def test_other_names_are_left_to_other_resolvers(
    registry: Registry, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Other(LoRAResolver):
        async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
            return LoRARequest(lora_name, 1, "/other")

    register()
    registry.register_resolver("other", Other())
    assert [found and found.lora_path for found in ask(registry, name)] == ["/other"]
    assert not caplog.records


@pytest.mark.parametrize(
    "wish",
    ["harm=1", "warm=-1", "warm=nan", "warm=0", "warm", "", "warm=1,warm=2", "x\r\nfake log line=1", "y" * 5000 + "=1"],
)
def test_a_wish_that_cannot_be_served_is_one_short_line_in_the_log(
    registry: Registry, tmp_path: Path, wish: str, caplog: pytest.LogCaptureFixture
) -> None:
    register()
    with caplog.at_level(logging.WARNING):
        assert ask(registry, f"moalign@{wish}") == [None]
    [line] = [record.getMessage() for record in caplog.records]
    assert line.isprintable()
    assert len(line) < 250
    assert not list(tmp_path.glob("cache/*"))


def test_a_base_that_is_another_is_refused(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    register()
    assert ask(registry, BETWEEN, base="org/other") == [None]
    assert "the run's base is 'org/base'; serve that" in caplog.text


def test_a_base_is_the_same_by_name_by_folder_or_by_its_files(tmp_path: Path) -> None:
    for name, config, size in (("a", "{}", 5), ("b", "{}", 5), ("c", "{1}", 5), ("d", "{}", 6), ("e", None, 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(size))
        if config is not None:
            (tmp_path / name / "config.json").write_text(config)
    assert same_base("org/base", "org/base")
    assert not same_base("org/base", "org/other")
    assert [same_base(str(tmp_path / "a"), str(tmp_path / other)) for other in "abcde"] == [1, 1, 0, 0, 0]
    assert not same_base(str(tmp_path / "e"), "org/base")


def test_a_run_that_reads_directions_is_refused(
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    three: dict[str, Adapter],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = made_run(tmp_path / "dpa", points={}, adapters={"round2": three["w"]}, method="dpa")
    run.add_point(point("told", (1.0, 0.0), (1.0, 0.25), row={"round2": 1.0}, direction={"warm": 1.0}))
    monkeypatch.setenv("MOALIGN_RUN", str(run.folder))
    register()
    assert ask(registry, "moalign@warm=1") == [None]
    assert "states a direction in the prompt" in caplog.text


# The cache


def test_many_who_ask_at_once_wait_for_one_merge(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop goes on meanwhile: a merge waits for something that the loop does."""
    loop_ran, merges, busy = threading.Event(), [], threading.Lock()
    write_blend = vllm.write_blend

    def slow(*arguments: Any, **options: Any) -> Any:
        assert busy.acquire(blocking=False), "two merges at once"
        merges.append(None)
        assert loop_ran.wait(20)
        made = write_blend(*arguments, **options)
        busy.release()
        return made

    monkeypatch.setattr(vllm, "write_blend", slow)
    register()
    resolver = registry.get_resolver("moalign")

    async def ask_all() -> list[Any]:
        tasks = [asyncio.ensure_future(resolver.resolve_lora("org/base", BETWEEN)) for _ in range(4)]
        while not merges:
            await asyncio.sleep(0.01)
        tasks[0].cancel()  # one of them hangs up: the others do not lose their merge
        loop_ran.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    gone, *found = asyncio.run(ask_all())
    assert isinstance(gone, asyncio.CancelledError)
    assert len({each.lora_path for each in found}) == 1
    assert (Path(found[0].lora_path) / "README.md").is_file()


def test_a_full_cache_refuses_and_keeps_what_it_gave(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """vLLM reads the folder of a known name again after it has dropped the adapter: none may vanish."""
    monkeypatch.setenv("MOALIGN_LORA_CACHE_SIZE", "2")
    register()
    first, second, third, again = ask(registry, "moalign@warm=1", BETWEEN, "moalign@brief=1", "moalign@warm=2")
    assert third is None
    assert "the cache holds its 2 adapters" in caplog.text
    assert first is not None
    assert second is not None
    assert again is not None
    assert again.lora_path == first.lora_path
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {
        Path(each.lora_path).name for each in (first, second)
    }


def test_a_cache_of_an_earlier_process_is_used(folder: Path, tmp_path: Path) -> None:
    environment = {"MOALIGN_RUN": str(folder), "MOALIGN_LORA_CACHE": str(tmp_path / "cache")}
    found = [asyncio.run(Merges.of(environment).find("org/base", BETWEEN)) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0] is not None
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_without_a_cache_the_folder_is_the_process_s_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made with the first adapter, and removed when the process ends."""
    at_end: list[tuple[Any, ...]] = []
    monkeypatch.setattr(vllm.atexit, "register", lambda *arguments, **_: at_end.append(arguments))
    monkeypatch.setattr(vllm.tempfile, "tempdir", str(tmp_path))
    merges = Merges.of({"MOALIGN_RUN": str(folder)})
    assert asyncio.run(merges.find("org/base", "moalign@nothing=1")) is None
    assert at_end == []
    found = asyncio.run(merges.find("org/base", BETWEEN))
    assert found is not None
    [(remove, made)] = at_end
    assert found.folder.parent == Path(made)
    assert Path(made).parent == tmp_path
    remove(made)
    assert not found.folder.exists()


def test_a_disk_that_refuses_is_a_line_in_the_log(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file")
    register()
    assert ask(registry, BETWEEN) == [None]
    assert "no adapter for" in caplog.text
