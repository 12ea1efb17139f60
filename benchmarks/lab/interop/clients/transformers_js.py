"""transformers.js in node: the layout of hubs, one row at a time, loaded as its own configuration says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("pip",)  # an environment to lay the packages of npm in
NPM = ("@huggingface/transformers@4.3.2",)
ARTIFACTS, KINDS = ("onnx_hub",), ("decoder", "encoder")
PROGRAM = """
import { env, AutoModel, AutoModelForCausalLM, Tensor } from "@huggingface/transformers";
import fs from "fs";
const task = JSON.parse(fs.readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = process.argv[2];
const decodes = task.kind === "decoder";
const model = await (decodes ? AutoModelForCausalLM : AutoModel).from_pretrained(process.argv[3]);
const int64 = (row) => new Tensor("int64", BigInt64Array.from(row, BigInt), [1, row.length]);
const values = [], tokens = [];
for (const row of task.rows) {
  const given = {input_ids: int64(row), attention_mask: int64(row.map(() => 1))};
  if (!decodes) given.token_type_ids = int64(row.map(() => 0));
  const found = await model(given), out = decodes ? found.logits : found.last_hidden_state;
  const width = out.dims[2], rows = out.dims[1], data = Array.from(out.data), mean = new Array(width).fill(0);
  data.forEach((value, i) => { mean[i % width] += value / rows; });
  values.push(decodes ? data.slice(-width) : mean);
  if (decodes) {
    const made = await model.generate(
      {...given, max_new_tokens: task.new_tokens, do_sample: false, eos_token_id: null});
    tokens.push(Array.from(made.data, Number).slice(row.length));
  }
}
fs.writeFileSync(1, JSON.stringify(decodes ? {values, tokens} : {values}));
"""


def answers(artifact: Path, task: dict[str, Any]) -> dict[str, Any]:
    """npm installs the library beside this environment once."""
    place = Path(sys.prefix) / "node"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise RuntimeError("node is not installed")
    if not (place / "node_modules").is_dir():
        place.mkdir(exist_ok=True)
        install = [npm, "install", "--silent", "--ignore-scripts", *NPM]  # they fetch what GPUs need
        subprocess.run(install, cwd=place, check=True, stdout=sys.stderr)
    (place / "answers.mjs").write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [node, "answers.mjs", f"{artifact.parent}/", artifact.name],
        cwd=place,
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        raise RuntimeError((said or ["node failed"])[0])
    found: dict[str, Any] = json.loads(done.stdout)
    return found
