"""How a run folder begins: the paths in its config, and the settings that it keeps to."""

from collections.abc import Callable, Collection
from pathlib import Path

from moalign.data.sources import READERS
from moalign.errors import ConfigError, RunError
from moalign.files import atomic_write_text
from moalign.settings import Settings


def placed(value: str, folder: Path) -> str:
    """What exists in `folder`, or must be a file and exists nowhere, as a whole path; a hub's name as it is."""
    name, colon, split = value.partition(":")
    found = folder / Path(name).expanduser()
    missing = name.endswith(tuple(READERS)) and not Path(name).exists()
    return str(found.resolve()) + colon + split if found.exists() or missing else value


def begin(
    folder: Path,
    config: Settings,
    text: str,
    *,
    load: Callable[[Path], Settings],
    command: str,
    made: Collection[str],
    incidental: Collection[str],
) -> None:
    """Write the settings; those of a run that nothing has come of yet are replaced, since they mend what stopped it.

    `text` is `config` as YAML, `load` reads it back, `made` names what depends on the settings, and `incidental` those
    settings that do not change what is found. Raises RunError if the folder holds something else, or a run of other
    settings.
    """
    path = folder / "config.yaml"
    if path.is_file():
        try:
            before = load(path)
        except ConfigError:
            raise RunError(
                f"{folder} holds a run that `{command}` did not begin; choose another folder with --out"
            ) from None
        one, other = before.model_dump(), config.model_dump()
        names = [name for name in one if name not in incidental and one[name] != other[name]]
        if names and any((folder / name).exists() for name in made):
            raise RunError(
                f"{folder} holds a run with other settings ({', '.join(names)} differ); choose another folder with "
                "--out, or delete this one"
            )
        if not names:
            return
    elif folder.is_dir() and not all(item.name.startswith(".config.yaml.") for item in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no run (no config.yaml); choose another folder with --out")
    atomic_write_text(path, text)
