// In a page: answers of transformers.js.
import { answers } from "./library.mjs";

export async function answer({ task, provider }) {
  const library = await import("/packages/@huggingface/transformers/dist/transformers.web.min.js");
  library.env.allowRemoteModels = false;
  library.env.allowLocalModels = true;
  library.env.useBrowserCache = false;
  library.env.localModelPath = "/";
  library.env.backends.onnx.wasm.numThreads = 1;
  library.env.backends.onnx.wasm.wasmPaths = "/packages/onnxruntime-web/dist/";
  return answers(library, "artifact", task, { device: provider });
}
