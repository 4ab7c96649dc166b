"""What to do when memory does not suffice: free what can be freed, halve the work, say so."""

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from moalign.errors import MemoryLimitError

Item = TypeVar("Item")
Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is about memory; a CPU's allocator raises a plain RuntimeError.

    >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes cannot be multiplied"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return any(text in str(error).lower() for text in ("out of memory", "can't allocate memory", "not enough memory"))


def release() -> None:
    """Give back what is no longer held by anybody."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_parts(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Result]],
    size: int,
    notice: Callable[[str], None] = lambda _: None,
    on_halved: Callable[[int], None] = lambda _: None,
) -> list[Result]:
    """`work` on `size` items at a time, in order; a part that does not fit in memory is halved and done again.

    `on_halved` is told the new size, for callers that come back with the like. Raises MemoryLimitError when a single
    item does not fit.

    >>> in_parts([1, 2, 3], lambda part: [2 * item for item in part], size=2)
    [2, 4, 6]
    """
    found: list[Result] = []
    while len(found) < len(items):
        part = items[len(found) : len(found) + size]
        try:
            found += work(part)
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        # Outside the handler, so that nothing of the failed part is held by its traceback.
        release()
        if len(part) == 1:
            raise MemoryLimitError(
                "out of memory with a single sequence; a smaller max_new_tokens, shorter prompts, or a machine with "
                "more memory helps"
            )
        size = len(part) // 2
        on_halved(size)
        notice(f"out of memory with {len(part)} sequences at once; going on with {size}")
    return found
