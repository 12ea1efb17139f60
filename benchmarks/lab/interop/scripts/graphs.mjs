// ONNX Runtime's sessions of a bundle, in node and in a browser alike: the greedy tokens with the caches that the
// graphs give, and the logits or vectors that a task asks for.

const ALONE = { batch_size: 1, past_capacity: 0, past_length: 0 };

const int64 = (ort, row) => new ort.Tensor("int64", BigInt64Array.from(row, BigInt), [1, row.length]);
const floats = (ort, row, dims) => new ort.Tensor("float32", Float32Array.from(row), dims);

// Caches before the first token: states of fixed size in zeros, keys and values of no tokens.
function empty(ort, session) {
  const caches = {};
  for (const { name, shape } of session.inputMetadata) {
    if (!name.startsWith("past_")) continue;
    const dims = shape.map((size) => (typeof size === "number" ? size : (ALONE[size] ?? 0)));
    caches[name] = floats(ort, new Float32Array(dims.reduce((a, b) => a * b, 1)), dims);
  }
  return caches;
}

const presentOf = (name) =>
  name.startsWith("past_key_values.") ? name.replace("past_key_values", "present") : name.replace("past", "present");

const largest = (row) => row.reduce((best, value, index) => (value > row[best] ? index : best), 0);

function last(logits) {
  return Array.from(logits.data.slice(-logits.dims.at(-1)));
}

// `known` is what an encoder gave to read, the same at every step.
async function continued(ort, session, ids, count, known) {
  let caches = empty(ort, session), total = 0, fed = ids, values = null;
  const tokens = [];
  for (let step = 0; step < count; step++) {
    total += fed.length;
    const given = { input_ids: int64(ort, fed), attention_mask: int64(ort, Array(total).fill(1)), ...known };
    const feeds = { ...caches };
    for (const name of session.inputNames) if (name in given) feeds[name] = given[name];
    const found = await session.run(feeds);
    const logits = last(found.logits);
    values ??= logits;
    fed = [largest(logits)];
    tokens.push(fed[0]);
    for (const name of Object.keys(caches)) caches[name] = found[presentOf(name)];
  }
  return { values, tokens };
}

function averaged(output) {
  const width = output.dims[2], rows = output.dims[1], mean = new Array(width).fill(0);
  output.data.forEach((value, index) => { mean[index % width] += value / rows; });
  return mean;
}

async function embedded(ort, session, task, row) {
  const given = task.pixels
    ? { pixel_values: floats(ort, row, [1, ...task.pixels]) }
    : { input_ids: int64(ort, row), attention_mask: int64(ort, row.map(() => 1)), token_type_ids: int64(ort, row.map(() => 0)) };
  const feeds = {};
  for (const name of session.inputNames) feeds[name] = given[name];
  const found = await session.run(feeds);
  if (task.kind.endsWith("tower")) return Array.from(found.sentence_embedding.data);
  return averaged(task.kind === "tagger" ? found.logits : found.last_hidden_state);
}

// What an encoder gives to read, of a text or of a sound, which is filled up with silence.
async function read(ort, encoder, task, row) {
  if ("samples" in task) {
    const audio = new Float32Array(task.samples);
    audio.set(row);
    return encoder.run({ audio: floats(ort, audio, [1, task.samples]) });
  }
  const mask = int64(ort, row.map(() => 1));
  return { ...(await encoder.run({ input_ids: int64(ort, row), attention_mask: mask })), encoder_attention_mask: mask };
}

// `open` gives the session of a graph of the bundle by its name.
export async function answers(ort, open, task) {
  const session = await open("model.onnx"), encoder = "start" in task ? await open("encoder.onnx") : null;
  const values = [], tokens = [];
  for (const row of task.rows) {
    if (!task.decodes) {
      values.push(await embedded(ort, session, task, row));
      continue;
    }
    const known = encoder === null ? {} : await read(ort, encoder, task, row);
    const begun = encoder === null ? row : [task.start];
    const found = await continued(ort, session, begun, task.new_tokens, known);
    values.push(found.values);
    tokens.push(found.tokens);
  }
  return task.decodes ? { values, tokens } : { values };
}
