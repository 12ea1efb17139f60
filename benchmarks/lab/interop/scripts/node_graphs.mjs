// node PROGRAM BUNDLE: a task on stdin, answers on stdout.
import fs from "fs";
import path from "path";
import ort from "onnxruntime-node";
import { answers } from "./graphs.mjs";

const open = (name) => ort.InferenceSession.create(path.join(process.argv[2], name));
const found = await answers(ort, open, JSON.parse(fs.readFileSync(0, "utf8")));
fs.writeFileSync(1, JSON.stringify(found));
