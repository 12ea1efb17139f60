// In a page: answers of ONNX Runtime's build for browsers, with the execution provider that is asked for.
import { answers } from "./graphs.mjs";
import { deviceFor } from "./webgpu_device.mjs";

export async function answer({ task, provider }) {
  const build = provider === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
  const ort = await import(`/packages/onnxruntime-web/dist/${build}`);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/packages/onnxruntime-web/dist/";
  const device = provider === "webgpu" ? await deviceFor() : undefined;
  const executionProviders = [device === undefined ? provider : { name: provider, device }];
  const open = async (name) => {
    const graph = new Uint8Array(await (await fetch(`/artifact/${name}`)).arrayBuffer());
    return ort.InferenceSession.create(graph, { executionProviders });
  };
  return answers(ort, open, task);
}
