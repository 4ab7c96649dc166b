"""The command line's contract: what comes before any command."""

from command import moalign

from moalign import __version__
from moalign.cli import app


def test_the_version_and_the_help_are_quick_to_come() -> None:
    assert moalign("--version") == (0, f"{__version__}\n", "")
    names = [command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback]
    assert len(names) == 13
    assert all(name in moalign("--help").out for name in names)


def test_a_mistyped_command_ends_with_two() -> None:
    ended = moalign("swep")
    assert ended.code == 2
    assert "swep" in ended.err
