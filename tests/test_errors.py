"""The tree of errors, and the line for a name that does not exist."""

import re

import pytest

from moalign import errors
from moalign.errors import BusyError, MoalignError, UserError, unknown

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


def test_the_tree_in_the_docstring_is_the_tree():
    """Every class is drawn once, under its parent: three more spaces are one floor down."""
    drawn = re.findall(r"^( *)(?:\+- )?(\w+Error)\b", errors.__doc__ or "", flags=re.MULTILINE)
    assert sorted(name for _, name in drawn) == sorted(error.__name__ for error in CLASSES)
    for error in CLASSES:
        if error not in (MoalignError, BusyError, UserError):
            assert issubclass(error, UserError), "the command line prints one line and exits with 2"
    assert not issubclass(BusyError, UserError), "it passes by itself: a server says when"
    assert not issubclass(MoalignError, UserError)


@pytest.mark.parametrize("error", CLASSES)
def test_one_clear_line(error):
    """Raised with a sentence, it prints that sentence; also where it is an OSError or a ValueError as well."""
    assert str(error("cannot write x: disk full")) == "cannot write x: disk full"
    assert error.__doc__


@pytest.mark.parametrize(
    ("name", "known", "line"),
    [
        ("brif", ["helpful", "brief"], "unknown objective 'brif'; did you mean 'brief'? (known: helpful, brief)"),
        ("xyz", ["helpful", "brief"], "unknown objective 'xyz' (known: helpful, brief)"),
        ("x", iter([]), "unknown objective 'x' (known: none)"),
        ("10", ["100", "200"], "unknown objective '10'; did you mean '100'? (known: 100, 200)"),
        ("", ["a"], "unknown objective '' (known: a)"),
    ],
)
def test_unknown(name, known, line):
    assert unknown("objective", name, known) == line
