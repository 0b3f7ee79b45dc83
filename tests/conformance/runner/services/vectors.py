"""Which profiles the cases of vector files ask for."""
import glob
import json
import os


def cases(files):
    for name in files:
        names = sorted(glob.glob(os.path.join(name, "*.jsonl"))) if os.path.isdir(name) else [name]
        for path in names:
            with open(path, encoding="utf-8") as file:
                for line in file:
                    if line.strip():
                        yield json.loads(line)


def profiles(ground, known, wanted=lambda case: True):
    """The profiles in use, in the order in which we know them, unknown ones last."""
    used = {case.get("profile") for case in cases(ground.files) if wanted(case)}
    if ground.options.profile:
        used &= set(ground.options.profile)
    return [name for name in known if name in used] + sorted(name for name in used - set(known) if name)
