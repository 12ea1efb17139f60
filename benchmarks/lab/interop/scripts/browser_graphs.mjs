// In a page: answers of ONNX Runtime's build for browsers, with the execution provider that is asked for.
import { answers } from "./graphs.mjs";

export async function answer({ task, provider }) {
  if (provider === "webgpu" && !(await navigator.gpu?.requestAdapter())) throw new Error("WebGPU gives no adapter");
  const build = provider === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  const ort = await import(`/packages/onnxruntime-web/dist/${build}`);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/packages/onnxruntime-web/dist/";
  const open = async (name) => {
    const graph = new Uint8Array(await (await fetch(`/artifact/${name}`)).arrayBuffer());
    return ort.InferenceSession.create(graph, { executionProviders: [provider] });
  };
  return answers(ort, open, task);
}
