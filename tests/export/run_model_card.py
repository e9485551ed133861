"""run_model_card.py DIRECTORY ...: the Python that each README.md gives for loading its directory runs."""
import os
import pathlib
import re
import subprocess
import sys

for directory in map(pathlib.Path, sys.argv[1:]):
    snippets = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text(), re.S)
    assert snippets, directory
    for snippet in snippets:
        environment = os.environ | {"TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        ran = subprocess.run([sys.executable, "-c", snippet.replace("DIRECTORY", str(directory))], capture_output=True, text=True,
                             env=environment)
        assert ran.returncode == 0 and "Once upon a time" in ran.stdout, f"{directory}: {snippet}\n{ran.stdout}\n{ran.stderr}"
    print(f"{directory.name}: {len(snippets)} run")
