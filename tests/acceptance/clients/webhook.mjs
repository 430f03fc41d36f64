// Is a delivery ours, to OpenAI's Node client? Arguments: its folder. Input: body, headers, secret and tolerance as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const OpenAI = require("openai");
const client = new OpenAI({ apiKey: "anything" });
const { body, headers, secret, tolerance } = JSON.parse(readFileSync(0, "utf8"));

await client.webhooks.verifySignature(body, headers, secret, tolerance);
const event = await client.webhooks.unwrap(body, headers, secret, tolerance);
const forged = await client.webhooks.verifySignature(`${body} `, headers, secret, tolerance).then(
  () => null,
  (error) => error.constructor.name,
);
console.log(JSON.stringify({ event, forged }));
