// One call to create, with a connection that breaks. Arguments: the client's folder, base URL.
import { createRequire } from "node:module";
import { join } from "node:path";

const [folder, baseURL] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const OpenAI = require("openai");
const client = new OpenAI({ baseURL, apiKey: "anything" });
console.log(JSON.stringify(await client.videos.create({ prompt: "a red ball" })));
