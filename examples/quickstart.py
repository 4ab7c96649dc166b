"""A front in Python, in a minute: three preferences of the help-desk demo, and a text for a wish in between.

python examples/quickstart.py
"""

from pathlib import Path
from tempfile import mkdtemp

import moalign
from moalign.demo.show import demo_config


def main() -> None:
    folder = Path(mkdtemp()) / "quickstart"
    config = demo_config(folder, ("helpful", "brief"), preferences={"lattice": 2})
    run = moalign.run_sweep(config, folder)
    front = run.front()
    for point in front.front:
        print(point.preference, {name: round(value, 2) for name, value in point.values.items()})
    print("hypervolume", round(front.hypervolume(), 3))
    speaker = moalign.Speaker.load(run)
    print(speaker.say("How do I reset my password?", moalign.Preference.parse("helpful=0.7,brief=0.3")))
    print(moalign.save_report(run))


if __name__ == "__main__":
    main()
