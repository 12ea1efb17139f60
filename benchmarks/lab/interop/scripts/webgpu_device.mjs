// The device that ONNX Runtime computes on. Its shaders of attention exchange keys and values between the lanes of a
// subgroup, from 8 lanes on, and give wrong numbers with fewer (SwiftShader has 4): there the device is asked for
// without subgroups, and ONNX Runtime takes its shaders that share memory of a workgroup.
const LANES = 8;
const LIMITS = [
  "maxBufferSize", "maxStorageBufferBindingSize", "maxStorageBuffersPerShaderStage", "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup", "maxComputeWorkgroupSizeX", "maxComputeWorkgroupSizeY", "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
];

// None where ONNX Runtime's own choice is right.
export async function deviceFor() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("WebGPU gives no adapter");
  if (!adapter.features.has("subgroups") || adapter.info.subgroupMinSize >= LANES) return undefined;
  const requiredFeatures = ["shader-f16"].filter((name) => adapter.features.has(name));
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
  return adapter.requestDevice({ requiredFeatures, requiredLimits });
}
