"""The command line. Exit codes: 0 done, 2 the user's mistake (one clear line), 1 ours.

Each command imports what it needs when it runs, so that `moalign --help` is quick.
"""

from moalign.cli.look import compare, explore, indicators, report
from moalign.cli.shell import app, main
from moalign.cli.speak import export, generate, merge, serve
from moalign.cli.train import demo, fill, reward_model, sft, sweep

__all__ = ["app", "main"]

# In the order in which they are shown, and used.
_LOOK, _SPEAK = (report, explore, indicators, compare), (generate, serve, merge, export)
for command in (demo, sweep, fill, *_LOOK, *_SPEAK, sft, reward_model):
    app.command()(command)
