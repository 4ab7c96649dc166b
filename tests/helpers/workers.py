"""Commands in processes of their own, forked from one that has loaded torch: half a second each, and not seven."""

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["moalign.sweep", "moalign.report", "moalign.cli", "peft", "transformers.models.llama.modeling_llama", "workers"]
)


def start(arguments: list[str], log: Path) -> BaseProcess:
    """Run `moalign arguments...` in a new process that leads a session of its own; its output goes to `log`."""
    process = _CONTEXT.Process(target=_run, args=(arguments, str(log)))
    process.start()
    return process


def _run(arguments: list[str], log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    import torch
    from tqdm import tqdm

    from moalign.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background begins with it ignored
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore, which a killed process leaves behind
    sys.argv = ["moalign", *arguments]
    main()
