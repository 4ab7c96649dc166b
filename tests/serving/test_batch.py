"""What a text becomes does not depend on what else is in the batch, nor on when it joined."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from plans import plan

from moalign.bank import AdapterBank
from moalign.generation import generate
from moalign.models import BaseModel, load_base
from moalign.serving.batch import Batch, Choice
from moalign.serving.limits import Limits
from moalign.serving.sampling import Sampling
from moalign.serving.text import BROKEN

ROWS = [{"a": 1.0}, {}, {"b": 0.5, "c": 0.5}, {"a": 0.2, "b": 0.3, "c": 0.5}, {"c": 1.5, "a": -0.5}]
Ask = tuple[list[int], dict[str, float], Sampling]


def texts_of(batch: Batch, asks: Sequence[Ask], waves: Callable[[int], int]) -> list[tuple[list[int], str]]:
    """What is written for each request; request i joins before step waves(i), as soon as there is a slot."""
    made = [batch.choices(prompt, plan(row), [sampling])[0] for prompt, row, sampling in asks]
    shown: dict[Choice, str] = dict.fromkeys(made, "")
    waiting, step = list(enumerate(made)), 0
    while waiting or len(batch):
        while waiting and waves(waiting[0][0]) <= step and batch.free:
            batch.admit(waiting.pop(0)[1])
        for choice, piece in batch.step():
            assert piece.error is None
            shown[choice] += piece.text
        step += 1
        assert step < 2000
    return [(choice.written, shown[choice]) for choice in made]


@pytest.fixture(scope="module")
def asks(prompts: list[list[int]]) -> list[Ask]:
    """Twenty requests: every prompt, many rows, greedy and drawn, short and long."""
    return [
        (prompts[i % 9], ROWS[i % 5], Sampling(3 + 5 * i % 17, temperature=(0.0, 1.0, 0.7)[i % 3], seed=i))
        for i in range(20)
    ]


@pytest.fixture(scope="module")
def alone(served_base: BaseModel, bank: AdapterBank, asks: list[Ask]) -> list[list[int]]:
    """What `generate` writes for each, by itself; greedy ones at so low a temperature that nothing else is likely."""
    return [
        generate(
            served_base,
            bank,
            bank.mixture(row)[None],
            [prompt],
            seeds=[sampling.seed],
            max_new_tokens=sampling.max_tokens,
            temperature=sampling.temperature or 1e-4,
        )[0]
        for prompt, row, sampling in asks
    ]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("slots", "prefill", "pace"), [(32, 2048, 0), (5, 2048, 0), (4, 7, 1), (1, 2048, 0), (8, 1, 2)]
)
def test_every_text_is_the_one_generate_writes_alone(
    served_base, bank, asks, alone, slots: int, prefill: int, pace: int
) -> None:
    """All at once, few slots, joining one by one, prompts read in parts of 7 tokens or of one: the same tokens."""
    batch = Batch(served_base, bank, Limits(slots=slots, prefill_tokens=prefill))
    found = texts_of(batch, asks, lambda i: i * pace)
    for (written, shown), expected in zip(found, alone, strict=True):
        assert written == expected
        assert shown == served_base.tokenizer.decode(expected, skip_special_tokens=True)


@torch.inference_mode()
def test_texts_that_leave_at_any_time_leave_the_others_alone(served_base, bank, asks, alone) -> None:
    """Every third text is dropped, while it reads or while it writes; the rest are as alone, and no slot is lost."""
    batch = Batch(served_base, bank, Limits(slots=6, prefill_tokens=16))
    made = [batch.choices(prompt, plan(row), [sampling])[0] for prompt, row, sampling in asks]
    waiting, step = list(made), 0
    while waiting or len(batch):
        while waiting and batch.free:
            batch.admit(waiting.pop(0))
        batch.step()
        batch.release([c for i, c in enumerate(made) if i % 3 == 1 and c.lanes[0].slot >= 0 and step % 4 == i % 4])
        step += 1
    assert (len(batch), batch.free) == (0, 6)
    kept = [i for i in range(len(asks)) if i % 3 != 1]
    assert [made[i].written for i in kept] == [alone[i] for i in kept]


@torch.inference_mode()
def test_a_decoded_text_follows_the_product_of_its_experts(served_base, bank, prompts) -> None:
    """MOD by reverse KL: the likeliest token under sum_i w_i log pi_i, each expert read by itself without a cache."""
    rows, shares = ({"a": 1.0}, {"b": 1.0}, {"c": 1.0}), (0.5, 0.3, 0.2)
    batch = Batch(served_base, bank, Limits(slots=5))
    choice = batch.choices(prompts[3], plan(*rows, shares=shares), [Sampling(10, temperature=0.0)])[0]
    other = batch.choices(prompts[0], plan(ROWS[2]), [Sampling(10)])[0]
    batch.admit(other)
    batch.admit(choice)
    assert batch.free == 1
    while len(batch):
        batch.step()
    ids = list(prompts[3])
    for token in choice.written:
        with bank.rows(bank.one_hot(["a", "b", "c"])):
            logits = served_base.model(input_ids=torch.tensor([ids] * 3)).logits[:, -1].log_softmax(-1)
        assert token == int((torch.tensor(shares)[:, None] * logits).sum(0).argmax())
        ids.append(token)


@torch.inference_mode()
def test_a_text_ends_at_its_stop_string_its_length_or_the_context(served_base, bank, prompts) -> None:
    batch = Batch(served_base, bank, Limits(slots=2))
    greedy = Sampling(30, temperature=0.0)
    [(_, text)] = texts_of(batch, [(prompts[5], ROWS[0], greedy)], lambda _: 0)
    assert len(text) > 8  # else there is nothing to stop at
    stop = text[4:7]
    choice = batch.choices(prompts[5], plan(ROWS[0]), [Sampling(30, temperature=0.0, stop=(stop,))])[0]
    batch.admit(choice)
    pieces = [piece for _ in range(30) if len(batch) for _, piece in batch.step()]
    assert "".join(piece.text for piece in pieces) == text[: text.index(stop)]
    assert pieces[-1].finish == "stop"
    room = served_base.context - 3
    long = batch.choices((prompts[6] * 20)[:room], plan(ROWS[0]), [Sampling(30, seed=1)])[0]
    batch.admit(long)
    while len(batch):
        last = batch.step()[-1][1]
    assert (last.finish, last.tokens) in (("length", 3), ("stop", len(long.written)))


@torch.inference_mode()
def test_probabilities_that_are_not_finite_end_one_text_and_no_other(served_base, bank, asks, alone) -> None:
    """An adapter with NaN in it: its text ends with an error, and its slot harms nobody who has it next."""
    layer = next(iter(bank.layers.values()))
    whole = layer.B[2].clone()
    batch = Batch(served_base, bank, Limits(slots=1))
    try:
        layer.B[2] = torch.nan
        broken = batch.choices(asks[0][0], plan({"c": 1.0}), [Sampling(5)])[0]
        batch.admit(broken)
        [(choice, piece)] = batch.step()
    finally:
        layer.B[2] = whole
    assert choice is broken
    assert piece.error is not None
    assert "finite" in piece.error
    assert batch.free == 1
    assert [written for written, _ in texts_of(batch, asks[:3], lambda _: 0)] == alone[:3]


@torch.inference_mode()
def test_log_probabilities_are_those_of_the_row(served_base, bank, prompts) -> None:
    batch = Batch(served_base, bank, Limits(slots=2))
    sampling = Sampling(6, temperature=0.5, top_p=0.9, seed=3, top_logprobs=2)
    choice = batch.choices(prompts[4], plan(ROWS[3]), [sampling])[0]
    batch.admit(choice)
    pieces = []
    while len(batch):
        pieces += [piece for _, piece in batch.step()]
    ids = prompts[4] + choice.written
    with bank.rows(bank.mixture(ROWS[3])[None]):
        expected = served_base.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    for place, (piece, token) in enumerate(zip(pieces, choice.written, strict=True), start=len(prompts[4]) - 1):
        if token in served_base.eos_ids:
            continue
        [found] = piece.logprobs
        assert found.logprob == pytest.approx(float(expected[place, token]), abs=1e-4)
        assert [value for _, _, value in found.top] == pytest.approx(expected[place].topk(2).values.tolist(), abs=1e-4)


@pytest.fixture
def poisoned(tiny_base, random_adapter) -> Iterator[tuple[BaseModel, AdapterBank]]:
    """A base to which token 7 is NaN, as an overflow in half precision would leave it."""
    base = load_base(str(tiny_base))
    base.model.get_input_embeddings().weight[7] = torch.nan
    adapters = {name: random_adapter(base.model, seed, rank=2 + seed) for seed, name in enumerate("abc")}
    with AdapterBank(base.model, adapters) as bank:
        yield base, bank


@torch.inference_mode()
def test_experts_that_cannot_be_combined_end_one_text_and_no_other(poisoned, asks, alone) -> None:
    batch = Batch(*poisoned, Limits(slots=3))
    two = plan({"a": 1.0}, {"b": 1.0}, shares=(0.5, 0.5))
    broken = batch.choices([5, 7, 5], two, [Sampling(5)])[0]
    fine = batch.choices(asks[0][0], plan(asks[0][1]), [asks[0][2]])[0]
    batch.admit(broken)
    batch.admit(fine)
    found = batch.step()
    assert [(choice, piece.error is not None) for choice, piece in found[:2]] == [(broken, True), (fine, False)]
    while len(batch):
        batch.step()
    assert fine.written == alone[0]


@torch.inference_mode()
def test_a_prompt_that_breaks_while_it_is_read_in_parts_leaves_nothing_behind(poisoned, asks, alone) -> None:
    """Its text ends at the part that holds NaN, before whoever has the slot next could be given any."""
    batch = Batch(*poisoned, Limits(slots=1, prefill_tokens=4))
    broken = batch.choices([5, 7, 5, 6] * 5, plan({"a": 1.0}), [Sampling(5)])[0]
    batch.admit(broken)
    [(choice, piece)] = batch.step()
    assert choice is broken
    assert piece.error is not None
    assert (batch.free, batch._kept) == (1, {})
    assert not any(store.isnan().any() for store in batch._slots._stores())
    assert [written for written, _ in texts_of(batch, asks[:2], lambda _: 0)] == alone[:2]


@torch.inference_mode()
def test_the_last_token_may_complete_a_stop_string_or_leave_one_unfinished(served_base, bank, prompts) -> None:
    """A token a letter: of four letters the last two, which the fourth token completes; and one letter more."""
    batch = Batch(served_base, bank, Limits(slots=2))

    def pieces(seed: int, *stop: str) -> tuple[str, str | None, int]:
        batch.admit(batch.choices(prompts[5], plan(ROWS[0]), [Sampling(4, seed=seed, stop=stop)])[0])
        found = [piece for _ in range(4) if len(batch) for _, piece in batch.step()]
        return "".join(piece.text for piece in found), found[-1].finish, found[-1].tokens

    seed, text = next((seed, text) for seed in range(200) if len(set(text := pieces(seed)[0]) - {BROKEN}) == 4)
    assert pieces(seed, text[2:]) == (text[:2], "stop", 4)
    assert pieces(seed, text[2:] + "more") == (text, "length", 4)
