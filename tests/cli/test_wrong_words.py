"""What is misspelt or missing is said before anything heavy is imported, hashed or made."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.chain

# Runs each command line and prints what it said, and which of the heavy packages it had imported by then.
SCRIPT = """
import contextlib, io, json, sys
from edgepress.cli.entry import run
found = []
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = run(arguments)
    heavy = [name for name in ("torch", "transformers", "onnxruntime") if name in sys.modules]
    found.append([code, said.getvalue(), heavy])
print(json.dumps(found))
"""


def test_nothing_heavy_is_imported_for_what_is_wrong(pico_llama: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("passes: [{pass: gtpq, scheme: W4A16}]")
    scheme = tmp_path / "s.yaml"
    scheme.write_text("passes: [{pass: gptq, scheme: W4A61}]")
    option = tmp_path / "o.yaml"
    option.write_text("passes: [{pass: gptq, scheme: W4A16, dampin: 0.1}]")
    training = tmp_path / "t.yaml"
    training.write_text("{passes: [{pass: tune}], training: {epoch: 2}}")
    blank, bytes_, rows = (tmp_path / name for name in ("blank.txt", "bytes.txt", "rows.jsonl"))
    blank.write_text(" \n\n")
    bytes_.write_bytes(b"\xff\xfe text")
    rows.write_text('{"words": "one"}\n')
    out = ["-o", str(tmp_path / "out")]
    cases = {
        "did you mean 'smollm2'": ["compress", "smollm", "--scheme", "W4A16", *out],
        "did you mean 'W4A16'": ["compress", "smollm2", "--scheme", "W4A61", *out],
        "take W4A16": ["compress", "smollm2", "--scheme", "nf4", *out],
        "did you mean 'balanced'": ["compress", "smollm2", "-r", "balancd", *out],
        "there is no recipe file nofile.yaml": ["compress", "smollm2", "-r", "nofile.yaml", *out],
        "did you mean 'gptq'": ["compress", "smollm2", "-r", str(recipe), *out],
        "unknown scheme 'W4A61'": ["compress", "smollm2", "-r", str(scheme), *out],
        "pass 1 (gptq): unknown key 'dampin'\n→ did you mean 'damping'?": ["recipe", "check", str(option)],
        "o.yaml, pass 1 (gptq): unknown key": ["compress", "smollm2", "-r", str(option), *out],
        "training: unknown key 'epoch'\n→ did you mean 'epochs'?": ["recipe", "show", str(training)],
        "edgepress compress MODEL --scheme W4A16": ["quantize", "smollm2"],
        "edgepress generate BUNDLE": ["chat", "bundle"],
        "edgepress export CHECKPOINT": ["convert", "small"],
        "either a recipe or a scheme": ["compress", "smollm2", *out],
        "not both: best and W4A16": ["compress", "smollm2", "-r", "best", "--scheme", "W4A16", *out],
        "the recipe best needs calibration text": ["compress", "smollm2", "-r", "best", *out],
        "no text at nofile.txt": ["compress", "smollm2", "-r", "best", "--calibration", "nofile.txt", *out],
        "blank.txt holds no text": ["compress", "smollm2", "-r", "best", "--calibration", str(blank), *out],
        "bytes.txt is not UTF-8": ["fit", "smollm2", "--max-disk", "75MB", "--text", str(bytes_), *out],
        "rows.jsonl:1 has no field": ["validate", "smollm2", "--against", "smollm2", "--text", str(rows)],
        "unknown device 'tpu'": ["compress", "smollm2", "-r", "best", "--device", "tpu", *out],
        "unknown text 'nofile'": ["fit", "smollm2", "--max-disk", "75MB", "--text", "nofile", *out],
        "no file or directory ./absent": ["compress", "./absent", "--scheme", "int4", "--dry-run"],
        "unknown model 'bundel'": ["validate", "bundel", "--against", "smollm2"],
        "group size 128 does not divide": ["compress", str(pico_llama), "--scheme", "W4A16-g128", *out],
        "did you mean 'h100-sxm'": ["profile", "bundle", "--on", "h100"],
        "unknown model 'absent'": ["inspect", "absent"],
        'a stop string is ""': ["generate", "bundle", "-p", "a", "--stop", "end", "--stop", ""],
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(cases.values()))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for said, (code, err, heavy) in zip(cases, json.loads(done.stdout), strict=True):
        assert code == 2 and said in err and not heavy, (said, err, heavy)
    assert set(tmp_path.iterdir()) == {option, recipe, scheme, training, blank, bytes_, rows}
