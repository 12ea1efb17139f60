// node PROGRAM MODEL: a task on stdin, answers on stdout.
import fs from "fs";
import path from "path";
import * as library from "@huggingface/transformers";
import { answers } from "./library.mjs";

const model = path.resolve(process.argv[2]);
library.env.allowRemoteModels = false;
library.env.localModelPath = `${path.dirname(model)}/`;
const found = await answers(library, path.basename(model), JSON.parse(fs.readFileSync(0, "utf8")));
fs.writeFileSync(1, JSON.stringify(found));
