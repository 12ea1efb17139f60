"""What the matrix has no cell of, each with what was found when it was tried."""

NOT_MEASURED: dict[str, str] = {
    "Environments in the same go": "all 912 cells took 27 minutes 37 seconds one after another, with their "
    "models and forms made from nothing and one of the two cores busy with other work (2026-12-01; the bar "
    "is 40 minutes), where the clients' environments were there. They are made once, in 19 minutes.",
    "In CI": "cells of a Llama and a BERT, in the clients that its environment has: transformers and "
    "onnxruntime-genai; seven families more in transformers with the slow tests. Every other cell is of "
    "`make interop`.",
    "WebGPU on a GPU": "there was none; SwiftShader, Chromium's adapter in software, stands in the tables. "
    "ONNX Runtime's shaders of attention exchange keys between the lanes of a subgroup, 8 or 16 of them, and "
    "SwiftShader's have 4: with prompts of 40 tokens the first logits were wrong by 0.6 of the largest. The "
    "matrix asks for a device without subgroups where an adapter has fewer than 8 lanes (2026-11-30).",
    "SGLang": "version 0.5.23 on PyPI is built for CUDA 13: it requires `sglang-kernel`, "
    "`flashinfer_python[cu13]`, `cuda-python>=13.0` and `torch==2.14.1`. Its build for CPUs is made from "
    "source or as a container, for Xeons with AMX "
    "([its page](https://docs.sglang.io/docs/hardware-platforms/cpu_server)), of sources and packages that "
    "no package index has (2026-11-29).",
}
