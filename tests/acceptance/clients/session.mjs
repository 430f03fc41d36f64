// What a user of OpenAI's Node client does, told as JSON. Arguments: the client's folder, base URL, a picture.
import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

const [folder, baseURL, picture] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const OpenAI = require("openai");
const { version } = JSON.parse(readFileSync(join(folder, "node_modules", "openai", "package.json")));
const client = new OpenAI({ baseURL, apiKey: "anything" });

async function failureOf(call) {
  try {
    await call();
  } catch (error) {
    const { status, code, param, type } = error;
    return { class: error.constructor.name, status, code, param, type, requestId: error.requestID ?? null };
  }
  return { class: null };
}

// The client has no helper for this.
async function poll(id) {
  for (;;) {
    const video = await client.videos.retrieve(id);
    if (!["queued", "in_progress"].includes(video.status)) return video;
    await wait(100);
  }
}

async function contentOf(id, query) {
  const answer = await client.videos.downloadContent(id, query);
  return { type: answer.headers.get("content-type"), bytes: Buffer.from(await answer.arrayBuffer()) };
}

async function idsOf(query) {
  const ids = [];
  for await (const video of client.videos.list(query)) ids.push(video.id);
  return ids;
}

const told = { version };
const created = await client.videos.create({ prompt: "a red ball", seconds: "4", size: "1280x720", seed: 42 });
told.created = created;
told.done = await poll(created.id);
const content = await contentOf(created.id);
told.video = [content.type, createHash("sha256").update(content.bytes).digest("hex")];
told.thumbnail = (await contentOf(created.id, { variant: "thumbnail" })).bytes.subarray(0, 4).toString("latin1");
told.spritesheet = (await contentOf(created.id, { variant: "spritesheet" })).bytes.subarray(0, 3).toString("hex");

// A stream goes out chunked, without a length, and as application/octet-stream.
const streamed = await client.videos.create({ prompt: "a blue square", input_reference: createReadStream(picture) });
told.pictured = await poll(streamed.id);
const url = `data:image/png;base64,${readFileSync(picture).toString("base64")}`;
const linked = await client.videos.create({ prompt: "two\nlines", seconds: "2", input_reference: { image_url: url } });
told.third = await poll(linked.id);

told.made = [created.id, streamed.id, linked.id];
told.listed = await idsOf({ limit: 2 });
told.ascending = await idsOf({ limit: 1, order: "asc" });
told.deleted = await client.videos.delete(linked.id);
told.gone = await failureOf(() => client.videos.retrieve(linked.id));
told.left = await idsOf({});
told.emptyId = await failureOf(() => client.videos.retrieve(""));

told.bad_size = await failureOf(() => client.videos.create({ prompt: "a", size: "1x1" }));
told.bad_model = await failureOf(() => client.videos.create({ prompt: "a", model: "no-such-model" }));
told.bad_name = await failureOf(() => client.videos.create({ prompt: "a", colour: "red" }));
told.models = [];
for await (const model of client.models.list()) told.models.push(model.id);
told.model = await client.models.retrieve("sora-2");
console.log(JSON.stringify(told));
