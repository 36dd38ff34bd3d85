// Set formulas. Each line in is [tex, display] in JSON, each line out its HTML or what is wrong.
import { createInterface } from "node:readline";
import katex from "katex";

for await (const line of createInterface({ input: process.stdin })) {
  const [tex, displayMode] = JSON.parse(line);
  const answer = {};
  try {
    answer.html = katex.renderToString(tex, { displayMode, strict: "error" });
  } catch (error) {
    answer.error = error.message;
  }
  console.log(JSON.stringify(answer));
}
