"""ONNX Runtime in node: the bundle of standard operators, one row at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("pip",)  # an environment to lay the packages of npm in
NPM = ("onnxruntime-node@1.30.0",)
ARTIFACTS, KINDS = ("onnx",), ("decoder", "encoder", "tagger")
PROGRAM = """
const ort = require("onnxruntime-node"), fs = require("fs");
const task = JSON.parse(fs.readFileSync(0, "utf8"));
const whole = (row) => BigInt64Array.from(row, BigInt);
(async () => {
  const session = await ort.InferenceSession.create(process.argv[2]);
  const values = [];
  for (const row of task.rows) {
    const size = [1, row.length], feeds = {};
    const given = {input_ids: row, attention_mask: row.map(() => 1), token_type_ids: row.map(() => 0)};
    for (const name of session.inputNames)
      if (name in given) feeds[name] = new ort.Tensor("int64", whole(given[name]), size);
      else if (name in task.caches)
        feeds[name] = new ort.Tensor("float32", new Float32Array(0), task.caches[name]);
    const found = await session.run(feeds);
    const out = task.kind === "encoder" ? found.last_hidden_state : found.logits;
    const width = out.dims[2], data = out.data, rows = out.dims[1], mean = new Array(width).fill(0);
    for (let i = 0; i < data.length; i++) mean[i % width] += data[i] / rows;
    values.push(task.kind === "decoder" ? Array.from(data.slice(-width)) : mean);
  }
  fs.writeFileSync(1, JSON.stringify({values}));
})();
"""


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """npm installs the runtime beside this environment once."""
    place = Path(sys.prefix) / "node"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise RuntimeError("node is not installed")
    if not (place / "node_modules").is_dir():
        place.mkdir(exist_ok=True)
        install = [npm, "install", "--silent", "--ignore-scripts", *NPM]  # they fetch what GPUs need
        subprocess.run(install, cwd=place, check=True, stdout=sys.stderr)
    (place / "answers.js").write_text(PROGRAM, encoding="utf-8")
    manifest = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    layers = manifest.get("decoder", {}).get("layers", [])
    caches = {
        f"past_key_values.{index}.{part}": [1, layer["kv_heads"], 0, layer["head_dim"]]
        for index, layer in enumerate(layers)
        for part in ("key", "value")
    }
    done = subprocess.run(
        [node, "answers.js", str(artifact / "model.onnx")],
        cwd=place,
        input=json.dumps({**task, "caches": caches}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        raise RuntimeError((said or ["node failed"])[0])
    found: dict[str, Any] = json.loads(done.stdout)
    return found
