"""The demo: a whole front, trained and measured against the exact optimum, on the machine at hand."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moalign.config import SweepConfig, parse_config
from moalign.demo.world import prompts
from moalign.files import atomic_write_text
from moalign.preference import Preference
from moalign.progress import Reporter
from moalign.report import save_report
from moalign.summary import summarise
from moalign.sweep import run_sweep
from moalign.talking import Speaker

BASE_FOLDER = Path(__file__).parent / "base"
OBJECTIVES = ("helpful", "brief", "warm", "careful")
_DIVISIONS = {2: 10, 3: 4, 4: 3}  # of the simplex: 11, 15 and 20 preferences


@dataclass(frozen=True)
class Shown:
    """What a demo ends with."""

    folder: Path
    summary: dict[str, Any]
    report: Path
    prompt: str
    texts: list[tuple[Preference, str]]

    def texts_and_next_steps(self) -> str:
        """Three texts for three preferences, and the commands to try next."""
        first = self.texts[len(self.texts) // 2][0]
        lines = ["", f"  Asked: {self.prompt}", ""]
        for preference, text in self.texts:
            lines += [f"  {preference}", f"    {text}", ""]
        return "\n".join(
            [
                *lines,
                "  Next:",
                f"    open {self.report}",
                f'    moalign generate {self.folder} --prefer {first} "{self.prompt}"',
                f"    moalign report {self.folder} --blends 1      # measure mixtures between the trained points",
                f"    moalign indicators {self.folder} --json",
                "    moalign demo --objectives 3",
                f"    {self.folder}/config.yaml is the sweep; copy it and put in your own base and objectives",
            ]
        )


def demonstrate(folder: Path, objectives: int, reporter: Reporter) -> Shown:
    """Sweep the help desk's objectives in `folder`, write its report, and let three points speak."""
    names = OBJECTIVES[:objectives]
    run = run_sweep(demo_config(folder, names), folder, reporter)
    path = save_report(run)
    prompt = prompts("eval")[0]
    ends = [Preference.of({name: 1.0}) for name in names[:2]]
    wishes = [ends[0], Preference.of(dict.fromkeys(names[:2], 0.5)), ends[1]]
    speaker = Speaker.load(run)
    return Shown(folder, summarise(run), path, prompt, [(w, speaker.say(prompt, w)["text"]) for w in wishes])


def demo_config(folder: Path, names: tuple[str, ...], **changes: Any) -> SweepConfig:
    """The demo's sweep over some of the objectives; its prompts are written into `folder`/inputs."""
    inputs = (folder / "inputs").resolve()
    for split in ("train", "eval"):
        rows = [{"prompt": [{"role": "user", "content": prompt}]} for prompt in prompts(split)]
        atomic_write_text(inputs / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "base": str(BASE_FOLDER),
        "objectives": {name: {"type": f"moalign.demo.world:{name}"} for name in names},
        "preferences": {"lattice": _DIVISIONS[len(names)]},
        "method": "modpo",
        "settings": {
            "beta": 0.5,
            "steps": 200,
            "batch_size": 16,
            "learning_rate": 2e-3,
            "grad_renorm": True,
            "warm_start": True,
            "warm_share": 0.3,
        },
        "adapter": {"rank": 8, "alpha": 16},
        "data": {
            "responses": {"prompts": str(inputs / "train.jsonl"), "per_prompt": 12},
            "prompts": str(inputs / "eval.jsonl"),
            "labels": "bradley_terry",
            "pairs_per_prompt": 16,
            "holdout": 0.0,
        },
        "evaluation": {"prompts": 24, "samples": 12, "max_new_tokens": 72},
        "oracle": "moalign.demo.world:answers",
    }
    return parse_config(values | changes, "demo")
