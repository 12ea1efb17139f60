"""What the matrix has no cell of, each with what was found when it was tried."""

from __future__ import annotations

NOT_MEASURED: dict[str, str] = {
    "All clients in one go": "cells were run client by client, beside other work on both cores. The least "
    "that was seen of each client, of those in JavaScript their processor time, adds up to about 31 minutes, "
    "with 4 for the models and their forms, and 19 for the environments, which are made once: within 40 "
    "minutes where those are there, and not where they are not (2026-12-01). The seconds above are of that "
    "loaded machine.",
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
