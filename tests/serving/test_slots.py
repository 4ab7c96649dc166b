"""Texts in slots are read as they are alone, wherever they stand."""

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

from moalign.errors import BaseModelError
from moalign.models import BaseModel
from moalign.serving.slots import Slots, check_architecture, next_logits, readable

CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def alone(model, text) -> torch.Tensor:
    return model(input_ids=torch.tensor([text])).logits[0, -1]


@pytest.fixture
def texts(ids) -> list[list[int]]:
    """Five texts of 9, 7, 5, 3 and 1 tokens."""
    return [row.tolist()[: 9 - 2 * i] for i, row in enumerate(ids[:5])]


@torch.inference_mode()
def test_texts_of_many_lengths_are_read_together_as_alone(model, texts) -> None:
    """Every architecture: read at once, in one padded batch."""
    found = next_logits(model, Slots(5, 16), 0, [0] * 5, texts)
    for row, text in zip(found, texts, strict=True):
        torch.testing.assert_close(row, alone(model, text), **CLOSE)


@torch.inference_mode()
def test_reading_in_parts_and_growing_storage_change_nothing(model, texts) -> None:
    """In parts of two tokens; storage begins small and doubles on the way."""
    slots, read = Slots(5, 64), [0] * 5
    last: dict[int, torch.Tensor] = {}
    for start in range(0, 9, 2):
        going = [i for i in range(5) if start < len(texts[i])]  # the first ones are the longest
        parts = [texts[i][start : start + 2] for i in going]
        found = next_logits(model, slots, 0, [read[i] for i in going], parts)
        for i, part, row in zip(going, parts, found, strict=True):
            read[i] += len(part)
            last[i] = row
    for i, text in enumerate(texts):
        torch.testing.assert_close(last[i], alone(model, text), **CLOSE)


@torch.inference_mode()
def test_slots_are_swapped_copied_and_reused(llama, texts) -> None:
    """A text goes on in another slot; a copy of its beginning goes on otherwise; what lay there before is not seen."""
    slots = Slots(4, 32)
    next_logits(llama, slots, 0, [0, 0, 0], [texts[0][:4], texts[1], texts[2]])
    slots.swap(0, 2, 7)  # text 0 is in slot 2 now
    slots.copy(2, 1, 3)  # and its first three tokens are in slot 1, over a longer text
    found = next_logits(llama, slots, 1, [3, 4], [texts[3], texts[0][4:]])
    torch.testing.assert_close(found[0], alone(llama, texts[0][:3] + texts[3]), **CLOSE)
    torch.testing.assert_close(found[1], alone(llama, texts[0]), **CLOSE)


@torch.inference_mode()
def test_nan_left_in_a_slot_reaches_nobody_once_it_is_cleared(llama, texts) -> None:
    slots = Slots(2, 32)
    next_logits(llama, slots, 0, [0, 0], [texts[0], texts[1]])
    slots._layers[0][1][0] = torch.nan
    assert next_logits(llama, slots, 0, [3], [[5]]).isnan().any()  # beyond the mask, and yet
    slots.clear(0)
    torch.testing.assert_close(next_logits(llama, slots, 0, [0], [texts[2]])[0], alone(llama, texts[2]), **CLOSE)


def base_of(model, tokenizer) -> BaseModel:
    return BaseModel("tiny", model, tokenizer, "digest")


def test_a_windowed_model_is_served_within_its_window(make_model, tokenizer) -> None:
    assert readable(base_of(make_model("mistral", sliding_window=8, max_position_embeddings=64), tokenizer)) == 8
    assert readable(base_of(make_model("llama", max_position_embeddings=64), tokenizer)) == 64


def test_known_architectures_pass_the_check(model, tokenizer) -> None:
    check_architecture(base_of(model, tokenizer))


def test_a_model_that_reads_otherwise_in_slots_is_refused(make_model, tokenizer, monkeypatch) -> None:
    """One that forgets its cache: its logits are those of the last token alone."""
    model = make_model("llama")
    whole = model.forward
    monkeypatch.setattr(model, "forward", lambda input_ids, **_: whole(input_ids=input_ids))
    with pytest.raises(BaseModelError, match=r"reads otherwise in slots.*expected a decoder"):
        check_architecture(base_of(model, tokenizer))


def test_a_model_without_such_a_cache_is_refused(tokenizer) -> None:
    settings = {"vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 1, "state_size": 4, "time_step_rank": 2}
    model = AutoModelForCausalLM.from_config(MambaConfig(**settings)).eval()
    with pytest.raises(BaseModelError, match=r"'mamba'.*expected a decoder"):
        check_architecture(base_of(model, tokenizer))


def test_what_turns_with_the_longest_text_of_a_batch_is_served_where_nothing_turns(make_model, tokenizer) -> None:
    """LongRoPE takes other factors for all of a batch once one text is longer than the first context."""
    turns = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "factor": 2.0}
    turns |= {"original_max_position_embeddings": 24, "rope_theta": 10000.0}
    model = make_model("llama", max_position_embeddings=48, rope_parameters=turns)
    assert readable(base_of(model, tokenizer)) == 24
    short, long = list(range(5, 12)), [(3 * i) % 90 for i in range(30)]
    together = next_logits(model, Slots(2, 48), 0, [0, 0], [short, long])[0]
    assert not torch.allclose(together, alone(model, short), atol=1e-3)  # why it must be so
    check_architecture(base_of(model, tokenizer))


def test_a_window_narrower_than_the_check_is_no_reason_to_refuse(make_model, tokenizer) -> None:
    check_architecture(base_of(make_model("mistral", sliding_window=7), tokenizer))
