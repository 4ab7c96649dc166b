"""The reference policy: the base, or the exact soup of adapters, by content and from the run's own copies."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from moalign.adapters import CONFIG_FILE, WEIGHTS_FILE, Adapter, write_adapter
from moalign.config import parse_config
from moalign.errors import AdapterError, ConfigError
from moalign.logprobs import Scorer
from moalign.models import BaseModel, load_base
from moalign.reference import ReferencePolicy, open_reference, start_of
from moalign.runs import Run


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> BaseModel:
    """With one bank after another on it, whose hooks do nothing outside their own contexts."""
    return load_base(str(tiny_base))


@pytest.fixture(scope="module")
def plain(base: BaseModel) -> PreTrainedModel:
    """A copy that no bank has touched."""
    return copy.deepcopy(base.model)


@pytest.fixture(scope="module")
def soups(plain: PreTrainedModel, random_adapter: Callable[..., Adapter]) -> dict[str, Adapter]:
    return {"one": random_adapter(plain, 1), "two": random_adapter(plain, 2, rank=2, alpha=3.0)}


@pytest.fixture
def folders(tmp_path: Path, soups: dict[str, Adapter]) -> dict[str, str]:
    """PEFT folders of the two adapters."""
    for name, adapter in soups.items():
        write_adapter(adapter, tmp_path / "sft" / name, "base")
    return {name: str(tmp_path / "sft" / name) for name in soups}


@pytest.fixture
def run(tmp_path: Path, tiny_base: Path) -> Callable[..., Run]:
    """run(reference=...): a run of method online with these settings."""

    def create(name: str = "run", **settings: Any) -> Run:
        objectives = {"brief": {"type": "length"}, "varied": {"type": "repetition"}}
        values = {"base": str(tiny_base), "objectives": objectives, "method": "online", "settings": settings}
        return Run.create(tmp_path / name, parse_config(values))

    return create


def logits(model: PreTrainedModel, policy: ReferencePolicy | None = None) -> Tensor:
    ids = torch.randint(3, 200, (4, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        if policy is None:
            return model(input_ids=ids).logits
        with policy():
            return model(input_ids=ids).logits


def test_the_base_is_the_base_to_the_bit(
    run: Callable[..., Run], base: BaseModel, plain: PreTrainedModel, folders: dict[str, str]
) -> None:
    """Not asked for, asked for, of no adapters, or of adapters that count nothing."""
    for number, settings in enumerate(
        [{}, {"reference": "base"}, {"reference": {}}, {"reference": {folders["one"]: 0.0}}]
    ):
        policy = open_reference(run(str(number), **settings), base)
        assert policy.digest == ""
        assert torch.equal(logits(base.model, policy), logits(plain))


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.25, 0.75), (1.5, -0.5), (0.0, 1.0)])
def test_a_soup_is_that_of_the_deltas(
    run: Callable[..., Run],
    base: BaseModel,
    plain: PreTrainedModel,
    folders: dict[str, str],
    soups: dict[str, Adapter],
    merged: Callable[..., PreTrainedModel],
    weights: tuple[float, float],
) -> None:
    """Log-probabilities within 1e-5 of W + sum_k w_k dW_k, added up in float64, and nothing left when it is over."""
    policy = open_reference(run(reference=dict(zip(folders.values(), weights, strict=True))), base)
    whole = merged(plain, soups, dict(zip(soups, weights, strict=True)))
    found, expected = logits(base.model, policy).log_softmax(-1), logits(whole).log_softmax(-1)
    assert (found - expected).abs().max() < 1e-5
    assert (expected - logits(plain).log_softmax(-1)).abs().max() > 0.1
    assert torch.equal(logits(base.model), logits(plain))


def test_the_log_probabilities_of_texts_are_the_merged_models(
    run: Callable[..., Run],
    base: BaseModel,
    plain: PreTrainedModel,
    folders: dict[str, str],
    soups: dict[str, Adapter],
    merged: Callable[..., PreTrainedModel],
) -> None:
    """As they are taken for KL: of groups of responses that share a prompt."""
    prompts, groups = [[5, 6, 7], [9, 10]], [[[20, 21, 2], [30, 2]], [[40, 41, 42, 2], [50]]]
    policy = open_reference(run(reference=dict.fromkeys(folders.values(), 0.5)), base)
    with policy():
        found = Scorer.of(base.model).batched(prompts, groups, 0)
    expected = Scorer.of(merged(plain, soups, dict.fromkeys(soups, 0.5))).batched(prompts, groups, 0)
    assert (found - expected).abs().max() < 1e-5


def test_a_weight_of_zero_is_as_if_it_were_not_there(
    run: Callable[..., Run], base: BaseModel, folders: dict[str, str]
) -> None:
    """SALSA's alpha of 0 and 1: the plain reference, in its name and in every bit."""
    one, two = folders.values()
    for number, (soup, alone) in enumerate(
        [({one: 1.0, two: 0.0}, {one: 1.0}), ({one: 0.0, two: 1.0}, {two: 1.0}), ({one: 0.3, two: 0.0}, {one: 0.3})]
    ):
        first, second = (
            open_reference(run(f"{number}{i}", reference=each), base) for i, each in enumerate((soup, alone))
        )
        assert first.digest == second.digest != ""
        assert torch.equal(logits(base.model, first), logits(base.model, second))


def test_the_digest_names_the_soup_by_content(
    run: Callable[..., Run], base: BaseModel, folders: dict[str, str], tmp_path: Path
) -> None:
    """Other weights and other adapters give another; another folder of the same adapter does not."""
    one, two = folders.values()
    elsewhere = str(shutil.copytree(one, tmp_path / "elsewhere"))
    soups = [{one: 0.5, two: 0.5}, {elsewhere: 0.5, two: 0.5}, {one: 0.6, two: 0.4}, {one: 0.5}, {two: 0.5}]
    found = [open_reference(run(str(number), reference=soup), base).digest for number, soup in enumerate(soups)]
    assert found[0] == found[1]
    assert len(set(found)) == len(found) - 1


def test_training_starts_at_the_first_of_a_soup_unless_told_otherwise(
    run: Callable[..., Run], base: BaseModel, folders: dict[str, str], soups: dict[str, Adapter]
) -> None:
    """The first even if it counts nothing: SALSA's policy starts from one fine-tuned model, whatever alpha."""
    one, two = folders.values()

    def start(name: str, **settings: Any) -> Adapter | None:
        found = start_of(run(name, **settings), base)
        return found[0] if found else None

    def same(adapter: Adapter | None, name: str) -> bool:
        assert adapter is not None
        return all(torch.equal(layer.A, soups[name].layers[key].A) for key, layer in adapter.layers.items())

    assert start("fresh") is None
    assert start("empty", reference={}) is None
    assert same(start("soup", reference={one: 0.5, two: 0.5}), "one")
    assert same(start("order", reference={two: 0.5, one: 0.5}), "two")
    assert same(start("zero", reference={one: 0.0, two: 1.0}), "one")
    assert same(start("told", reference={one: 0.5, two: 0.5}, start=two), "two")
    assert same(start("alone", start=two), "two")


def test_once_the_run_has_its_copy_the_folder_may_move(
    run: Callable[..., Run], base: BaseModel, folders: dict[str, str]
) -> None:
    """Moved, or changed: what counts is what the run began with."""
    mine = run(reference=dict.fromkeys(folders.values(), 0.5))
    first, start = open_reference(mine, base), start_of(mine, base)
    expected = logits(base.model, first)
    shutil.rmtree(folders["one"])
    shutil.copyfile(Path(folders["two"]) / CONFIG_FILE, Path(folders["two"]) / WEIGHTS_FILE)
    again, start_again = open_reference(mine, base), start_of(mine, base)
    assert again.digest == first.digest
    assert torch.equal(logits(base.model, again), expected)
    assert start is not None
    assert start_again is not None
    assert start_again[1] == start[1]


def test_a_copy_that_was_changed_is_refused(run: Callable[..., Run], base: BaseModel, folders: dict[str, str]) -> None:
    mine = run(reference={folders["one"]: 1.0})
    open_reference(mine, base)
    (path,) = (mine.folder / "reference").rglob(WEIGHTS_FILE)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(AdapterError, match="does not match the digest"):
        open_reference(mine, base)


@pytest.mark.parametrize("key", ["reference", "start"])
def test_a_folder_that_is_not_there_is_named(run: Callable[..., Run], base: BaseModel, key: str) -> None:
    mine = run(**{key: "no/such/adapter" if key == "start" else {"no/such/adapter": 1.0}})
    with pytest.raises(ConfigError, match=f"settings.{key}: there is no adapter folder 'no/such/adapter'; expected"):
        open_reference(mine, base), start_of(mine, base)


def test_a_folder_that_is_no_adapter_is_named(run: Callable[..., Run], base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterError, match="empty"):
        open_reference(run(reference={str(tmp_path / "empty"): 1.0}), base)


def test_an_adapter_of_another_base_is_named(
    run: Callable[..., Run],
    base: BaseModel,
    make_model: Callable[..., PreTrainedModel],
    random_adapter: Callable[..., Adapter],
    tmp_path: Path,
) -> None:
    """Wider than this base, or of an architecture whose layers have other names."""
    for number, other in enumerate([make_model("llama", hidden_size=64), make_model("gpt2")]):
        folder = tmp_path / f"other {number}"
        write_adapter(random_adapter(other, 1), folder, "other")
        for key, settings in {"reference": {str(folder): 1.0}, "start": str(folder)}.items():
            mine = run(f"{key}{number}", **{key: settings})
            with pytest.raises(
                AdapterError, match=f"settings.{key}: .*other {number}.*layer .*of another base model"
            ) as told:
                open_reference(mine, base), start_of(mine, base)
            assert len(str(told.value).splitlines()) == 1
            assert not (mine.folder / "reference").exists()  # so that the folder can be mended


def test_the_copies_say_where_they_came_from(run: Callable[..., Run], base: BaseModel, folders: dict[str, str]) -> None:
    mine = run(reference=dict.fromkeys(folders.values(), 0.5))
    open_reference(mine, base)
    records = [json.loads(path.read_text()) for path in (mine.folder / "reference").rglob("record.json")]
    assert sorted(record["source"] for record in records) == sorted(folders.values())
