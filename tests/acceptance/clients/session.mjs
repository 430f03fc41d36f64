// What a user of OpenAI's Node client does, told as JSON. Arguments: the client's folder, base URL, key, a picture.
// Any version runs it.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createReadStream, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";

const [folder, baseURL, apiKey, picture] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const OpenAI = require("openai");
const { toFile } = OpenAI;
const { version } = JSON.parse(readFileSync(join(folder, "node_modules", "openai", "package.json")));
const client = new OpenAI({ baseURL, apiKey });

const RESOURCES = ["videos", "files", "batches", "models", "webhooks"];
const QUICK = { num_inference_steps: 2, seed: 42 };
const POLL_MS = 200;
const PATIENCE_MS = 300_000;

const called = {};
let expecting = false;

const isResource = (value) => value !== null && typeof value === "object" && "_client" in value;

function methodsOf(resource, name) {
  const own = Object.getOwnPropertyNames(Object.getPrototypeOf(resource));
  const methods = own.filter((key) => key !== "constructor" && typeof resource[key] === "function");
  const inside = Object.entries(resource).filter(([key, value]) => !key.startsWith("_") && isResource(value));
  return [...methods.map((key) => `${name}.${key}`), ...inside.flatMap(([key, value]) => methodsOf(value, `${name}.${key}`))];
}

// The same resource, every method of which is written down when it is called: "ok", or what nobody expected.
function watched(resource, name) {
  return new Proxy(resource, {
    get(_, key) {
      const value = resource[key];
      if (isResource(value)) return watched(value, `${name}.${key}`);
      if (typeof value !== "function") return value;
      return (...given) => {
        const expected = expecting;
        const note = (error) => {
          if (error && !(expected && error instanceof OpenAI.APIError)) called[`${name}.${key}`] = error.constructor.name;
          else called[`${name}.${key}`] ??= "ok";
        };
        const result = value.apply(resource, given);
        Promise.resolve(result).then(() => note(null), note);
        return result;
      };
    },
  });
}

const offered = RESOURCES.flatMap((name) => methodsOf(client[name], name));
const has = (name) => offered.includes(name);
const [videos, files, batches, models, webhooks] = RESOURCES.map((name) => watched(client[name], name));

async function failureOf(call) {
  expecting = true;
  try {
    await call();
  } catch (error) {
    const { status, code, param, type } = error;
    return { class: error.constructor.name, status, code, param, type, request_id: error.requestID ?? null };
  } finally {
    expecting = false;
  }
  return { class: null };
}

// The client has no helper for this.
async function finished({ id }) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const video = await videos.retrieve(id);
    if (!["queued", "in_progress"].includes(video.status)) return video;
    if (Date.now() > deadline) throw new Error(`${id} is never finished`);
    await wait(POLL_MS);
  }
}

async function contentOf(id, query) {
  const answer = await videos.downloadContent(id, query);
  return { type: answer.headers.get("content-type"), bytes: Buffer.from(await answer.arrayBuffer()) };
}

async function idsOf(pages) {
  const ids = [];
  for await (const each of pages) ids.push(each.id);
  return ids;
}

let source = "";
let clip = Buffer.alloc(0);
const clipFile = (name = "clip.mp4") => toFile(clip, name, { type: "video/mp4" });

const chapters = {
  async videos() {
    const told = {};
    const extra = { ...QUICK, metadata: { shot: "one" } };
    const created = await videos.create({ prompt: "a red ball", seconds: "4", size: "1280x720", ...extra });
    told.created = created;
    told.early = await failureOf(() => videos.downloadContent(`video_${"0".repeat(48)}`));
    told.done = await finished(created);
    told.retrieved = await videos.retrieve(created.id);
    const content = await contentOf(created.id);
    told.video = [content.type, createHash("sha256").update(content.bytes).digest("hex")];
    told.thumbnail = (await contentOf(created.id, { variant: "thumbnail" })).bytes.subarray(0, 4).toString("latin1");
    told.spritesheet = (await contentOf(created.id, { variant: "spritesheet" })).bytes.subarray(0, 3).toString("hex");

    // A stream goes out without a length, and as application/octet-stream.
    const reference = { input_reference: createReadStream(picture) };
    const streamed = await videos.create({ prompt: "a blue square", model: "sora-2-pro", seconds: "2", ...reference, ...QUICK });
    told.pictured = await finished(streamed);
    const third = await videos.create({ prompt: "two\nlines", seconds: "2", ...QUICK });
    told.third = await finished(third);
    told.made = [created.id, streamed.id, third.id];
    told.listed = await idsOf(videos.list({ limit: 2 }));
    told.ascending = await idsOf(videos.list({ limit: 1, order: "asc" }));
    told.deleted = await videos.delete(created.id);
    told.gone = await failureOf(() => videos.retrieve(created.id));
    told.left = await idsOf(videos.list({}));
    source = third.id;
    clip = (await contentOf(third.id)).bytes;
    told.kept = [third.id, createHash("sha256").update(clip).digest("hex")];
    return told;
  },

  async references() {
    const told = {};
    const quick = { prompt: "a ball", seconds: "2", ...QUICK };
    const url = `data:image/png;base64,${readFileSync(picture).toString("base64")}`;
    told.linked = await finished(await videos.create({ ...quick, input_reference: { image_url: url } }));
    const file = await files.create({ file: createReadStream(picture), purpose: "vision" });
    told.stored = await finished(await videos.create({ ...quick, input_reference: { file_id: file.id } }));
    const raw = await toFile(readFileSync(picture), "first.png");
    told.raw = await finished(await videos.create({ ...quick, input_reference: raw }));
    return told;
  },

  async remakes() {
    const told = { source };
    const by = { video: { id: source }, ...QUICK };
    told.remixed = await finished(await videos.remix(source, { prompt: "a green ball", ...QUICK }));
    const edit = { prompt: "a blue ball" };
    const extension = { prompt: "the ball rolls on", seconds: "2" };
    if (has("videos.edit")) {
      told.edited = await finished(await videos.edit({ ...edit, ...by }));
      told.edited_file = await finished(await videos.edit({ ...edit, ...QUICK, model: "sora-2", video: await clipFile() }));
    } else {
      told.edited = await finished(await client.post("/videos/edits", { body: { ...edit, ...by } }));
    }
    if (has("videos.extend")) {
      told.extended = await finished(await videos.extend({ ...extension, ...by }));
      const uploaded = { ...extension, ...QUICK, model: "sora-2", video: await clipFile() };
      told.extended_file = await finished(await videos.extend(uploaded));
    } else {
      told.extended = await finished(await client.post("/videos/extensions", { body: { ...extension, ...by } }));
    }
    return told;
  },

  async characters() {
    if (!has("videos.createCharacter")) return {};
    const told = {};
    const mossy = await videos.createCharacter({ name: "Mossy", video: await clipFile("mossy.mp4") });
    told.created = mossy;
    told.retrieved = await videos.getCharacter(mossy.id);
    const cast = { characters: [{ id: mossy.id }], ...QUICK };
    told.met = await finished(await videos.create({ prompt: "Mossy on a green field", seconds: "2", ...cast }));
    const crowd = Array(3).fill({ id: mossy.id });
    told.crowd = await failureOf(() => videos.create({ prompt: "Mossy, thrice", characters: crowd }));
    told.gone = await failureOf(() => videos.getCharacter(`char_${"0".repeat(32)}`));
    return told;
  },

  async files() {
    const told = {};
    const lines = () => toFile(Buffer.from('{"a": 1}\n{"a": 2}\n'), "notes.jsonl");
    const created = await files.create({ file: await lines(), purpose: "user_data" });
    told.created = created;
    told.processed = await files.waitForProcessing(created.id);
    told.retrieved = await files.retrieve(created.id);
    told.content = await (await files.content(created.id)).text();
    const second = await files.create({ file: await lines(), purpose: "user_data" });
    told.made = [created.id, second.id];
    told.listed = await idsOf(files.list({ purpose: "user_data", limit: 1 }));
    told.ascending = await idsOf(files.list({ purpose: "user_data", limit: 1, order: "asc" }));
    told.deleted = await files.delete(created.id);
    told.gone = await failureOf(() => files.retrieve(created.id));
    return told;
  },

  async batches() {
    const told = {};
    const good = { prompt: "a red ball", seconds: "2", ...QUICK };
    const created = await batchOf([good, { ...good, size: "1x1" }], { film: "one" });
    told.created = created;
    told.done = await settled(created);
    told.output = await linesOf(told.done.output_file_id);
    told.errors = await linesOf(told.done.error_file_id);
    const cancelled = await batchOf([good, good, good], {});
    told.cancelling = (await batches.cancel(cancelled.id)).status;
    told.cancelled = await settled(cancelled);
    told.made = [created.id, cancelled.id];
    told.listed = await idsOf(batches.list({ limit: 1 }));
    told.gone = await failureOf(() => batches.retrieve(`batch_${"0".repeat(32)}`));
    return told;
  },

  async models() {
    const told = { listed: await idsOf(models.list()) };
    told.retrieved = await models.retrieve("sora-2");
    told.gone = await failureOf(() => models.retrieve("no-such-model"));
    // A method of the client that has no meaning here: it deletes fine-tuned models.
    told.undeletable = await failureOf(() => models.delete("sora-2"));
    return told;
  },

  async webhooks() {
    const told = {};
    const wanted = { name: "mine", event_types: ["video.completed"] };
    const { url, arrival, close } = await receiver();
    try {
      const endpoint = has("webhooks.create")
        ? await webhooks.create({ url, ...wanted })
        : await client.post("/webhook_endpoints", { body: { url, ...wanted } });
      told.created = endpoint;
      const video = await videos.create({ prompt: "a red ball", seconds: "2", ...QUICK });
      const { body, headers } = await arrival();
      const secret = endpoint.signing_secret;
      await webhooks.verifySignature(body, headers, secret);
      const event = await webhooks.unwrap(body, headers, secret);
      told.event = { type: event.type, about: event.data.id, video: video.id, id: event.id };
      const forged = client.webhooks.verifySignature(`${body} `, headers, secret);
      told.forged = await forged.then(() => "accepted", (error) => (error instanceof OpenAI.InvalidWebhookSignatureError ? "refused" : String(error)));
      if (has("webhooks.create")) Object.assign(told, await manage(endpoint.id, arrival));
      else await client.delete(`/webhook_endpoints/${endpoint.id}`);
    } finally {
      close();
    }
    return told;
  },

  async refusals() {
    return {
      bad_size: await failureOf(() => videos.create({ prompt: "a", size: "1x1" })),
      bad_model: await failureOf(() => videos.create({ prompt: "a", model: "no-such-model" })),
      bad_name: await failureOf(() => videos.create({ prompt: "a", colour: "red" })),
      // The client does not check this itself, and asks for /videos/.
      empty_id: await failureOf(() => videos.retrieve("")),
    };
  },
};

async function batchOf(bodies, metadata) {
  const lines = bodies.map((body, at) => ({ custom_id: `shot-${at + 1}`, method: "POST", url: "/v1/videos", body }));
  const text = lines.map((line) => JSON.stringify(line)).join("\n");
  const file = await files.create({ file: await toFile(Buffer.from(text), "batch.jsonl"), purpose: "batch" });
  return batches.create({ input_file_id: file.id, endpoint: "/v1/videos", completion_window: "24h", metadata });
}

async function settled(batch) {
  const deadline = Date.now() + PATIENCE_MS;
  while (["validating", "in_progress", "finalizing", "cancelling"].includes(batch.status)) {
    if (Date.now() > deadline) throw new Error(`${batch.id} is never finished`);
    await wait(POLL_MS);
    batch = await batches.retrieve(batch.id);
  }
  return batch;
}

async function linesOf(fileId) {
  const text = await (await files.content(fileId)).text();
  return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

async function manage(id, arrival) {
  const told = {};
  told.retrieved = await webhooks.retrieve(id);
  told.updated = await webhooks.update(id, { name: "renamed" });
  told.listed = await idsOf(webhooks.list());
  told.rotated = await webhooks.rotateSecret(id, {});
  told.tested = await webhooks.test(id, { event_type: "video.completed" });
  const { body, headers } = await arrival();
  told.test_event = (await webhooks.unwrap(body, headers, told.rotated.signing_secret)).type;
  told.event_types = (await webhooks.eventTypes.list()).data;
  told.deleted = await webhooks.delete(id);
  told.gone = await failureOf(() => webhooks.retrieve(id));
  return told;
}

// Listens for webhooks; arrival() waits for the next one.
async function receiver() {
  const arrived = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    arrived.push({ body, headers: request.headers });
    server.emit("arrived");
    response.writeHead(204).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}/hook`,
    async arrival() {
      if (!arrived.length) await once(server, "arrived", { signal: AbortSignal.timeout(PATIENCE_MS) });
      return arrived.shift();
    },
    close: () => server.close() && server.closeAllConnections(),
  };
}

const told = { version, crashed: {}, chapters: {} };
for (const [name, chapter] of Object.entries(chapters)) {
  try {
    told.chapters[name] = await chapter();
  } catch (error) {
    told.crashed[name] = error.stack; // the others are to be told as well
  }
}
console.log(JSON.stringify({ ...told, offered, called }));
