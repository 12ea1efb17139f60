// transformers.js, in node and in a browser alike: a model of the layout of hubs, a row at a time, loaded as its own
// configuration says.

const NAMES = ["image_embeds", "text_embeds", "pooler_output"];

function averaged(output) {
  const width = output.dims[2], rows = output.dims[1], mean = new Array(width).fill(0);
  output.data.forEach((value, index) => { mean[index % width] += value / rows; });
  return mean;
}

// What an encoder–decoder is given of a text, or of a sound, which is filled up with silence.
async function read(library, name, task, row) {
  if (!("samples" in task)) return null;
  const audio = new Float32Array(task.samples);
  audio.set(row);
  return (await library.AutoFeatureExtractor.from_pretrained(name))(audio);
}

function loader(task) {
  if ("samples" in task) return "AutoModelForSpeechSeq2Seq";
  if ("start" in task) return "AutoModelForSeq2SeqLM";
  if (task.decodes) return "AutoModelForCausalLM";
  return task.kind === "tagger" ? "AutoModelForTokenClassification" : "AutoModel";
}

// `library` is the package, `name` the model's folder in its `env.localModelPath`, `asked` further options.
export async function answers(library, name, task, asked = {}) {
  const { Tensor } = library;
  const model = await library[loader(task)].from_pretrained(name, asked);
  const int64 = (row) => new Tensor("int64", BigInt64Array.from(row, BigInt), [1, row.length]);
  const values = [], tokens = [];
  for (const row of task.rows) {
    const heard = await read(library, name, task, row);
    const given = heard !== null ? heard : task.pixels
      ? { pixel_values: new Tensor("float32", Float32Array.from(row), [1, ...task.pixels]) }
      : { input_ids: int64(row), attention_mask: int64(row.map(() => 1)) };
    if (!task.decodes && !task.pixels) given.token_type_ids = int64(row.map(() => 0));
    const begun = "start" in task ? { decoder_input_ids: int64([task.start]) } : {};
    const found = await model({ ...given, ...begun });
    if (!task.decodes) {
      const vector = task.kind.endsWith("tower") ? NAMES.find((one) => one in found) ?? "sentence_embedding" : null;
      values.push(vector === null ? averaged(task.kind === "tagger" ? found.logits : found.last_hidden_state) : Array.from(found[vector].data));
      continue;
    }
    values.push(Array.from(found.logits.data.slice(-found.logits.dims[2])));
    const how = { max_new_tokens: task.new_tokens, do_sample: false, eos_token_id: null };
    const made = await model.generate({ ...given, ...begun, ...how });
    tokens.push(Array.from(made.data, Number).slice("start" in task ? 1 : row.length));
  }
  return task.decodes ? { values, tokens } : { values };
}
