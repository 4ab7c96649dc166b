"""Work that does not fit is halved until it does, whatever kind of machine says so; nothing else is swallowed."""

from collections.abc import Callable, Sequence

import pytest
import torch

from moalign.errors import MemoryLimitError
from moalign.memory import in_parts, out_of_memory


def machine(room: int, error: BaseException | None = None) -> tuple[Callable[[Sequence[int]], list[int]], list[int]]:
    """Work on at most `room` items at once, and the sizes that it was asked for."""
    asked: list[int] = []

    def work(part: Sequence[int]) -> list[int]:
        asked.append(len(part))
        if len(part) > room:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [10 * item for item in part]

    return work, asked


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_errors_are_about_memory(error: BaseException, expected: bool) -> None:
    assert out_of_memory(error) is expected


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_the_order_is_that_of_the_items(size: int) -> None:
    work, asked = machine(room=100)
    assert in_parts(range(7), work, size) == [0, 10, 20, 30, 40, 50, 60]
    assert asked == [size] * (7 // size) + ([7 % size] if 7 % size else [])


def test_no_items_are_no_work() -> None:
    work, asked = machine(room=1)
    assert in_parts([], work, 0) == []
    assert asked == []


def test_a_part_that_does_not_fit_is_halved_and_done_again() -> None:
    """Room for 3 of 10: 10, 5 and then 2 at a time; what fits stays the size of all that follow."""
    work, asked = machine(room=3)
    said: list[str] = []
    assert in_parts(range(10), work, 10, said.append) == [10 * i for i in range(10)]
    assert asked == [10, 5, 2, 2, 2, 2, 2]
    assert said == [
        "out of memory with 10 sequences at once; going on with 5",
        "out of memory with 5 sequences at once; going on with 2",
    ]


def test_the_size_that_fits_is_told_to_callers_that_come_back() -> None:
    work, asked = machine(room=3)
    fits: list[int] = []
    in_parts(range(10), work, 10, on_halved=fits.append)
    assert fits == [5, 2]
    assert in_parts(range(4), work, fits[-1], on_halved=fits.append) == [0, 10, 20, 30]
    assert (fits, asked[-2:]) == ([5, 2], [2, 2])


def test_what_was_done_before_is_not_done_again() -> None:
    """The second part of three is the one that fails."""
    done: list[int] = []

    def work(part: Sequence[int]) -> Sequence[int]:
        if list(part) == [2, 3]:
            raise MemoryError
        done.extend(part)
        return part

    assert in_parts(range(6), work, 2) == list(range(6)) == done


def test_a_single_item_that_does_not_fit_is_told() -> None:
    work, asked = machine(room=0)
    with pytest.raises(MemoryLimitError, match="out of memory with a single sequence; a smaller max_new_tokens"):
        in_parts(range(4), work, 4)
    assert asked == [4, 2, 1]


def test_other_errors_are_passed_on_at_once() -> None:
    work, asked = machine(room=1, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        in_parts(range(4), work, 4)
    assert asked == [4]
