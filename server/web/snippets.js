// The request that makes a video once more, for whoever writes programs.

/** @param {Video} video */
export const request = (video) => ({
  model: video.model, prompt: video.prompt ?? '', size: video.size, seconds: video.seconds, seed: video.seed,
  num_inference_steps: video.num_inference_steps, guidance_scale: video.guidance_scale,
  ...(video.negative_prompt && { negative_prompt: video.negative_prompt }),
});

const quoted = (/** @type {unknown} */ text) => `'${String(text).replaceAll("'", "'\\''")}'`;

/** @param {Video} video */
export const curl = (video) =>
  `curl ${location.origin}/v1/videos -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify(request(video)))}`;

/** @param {Video} video */
export function python(video) {
  const { model, prompt, size, seconds, ...own } = request(video);
  const text = (/** @type {string} */ it) => JSON.stringify(it);
  return `from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key="none")
video = client.videos.create_and_poll(
    model=${text(model)},
    prompt=${text(prompt)},
    size=${text(size)},
    seconds=${text(seconds)},
    extra_body=${JSON.stringify(own)},
)
client.videos.download_content(video.id).write_to_file("${video.id}.mp4")
`;
}

/** @param {Video} video */
export function command(video) {
  const { prompt, model, size, seconds, seed, num_inference_steps, guidance_scale, negative_prompt } = request(video);
  const options = { model, size, seconds, seed, steps: num_inference_steps, guidance: guidance_scale, ...(negative_prompt && { negative: negative_prompt }) };
  return `homereel generate ${quoted(prompt)} ${Object.entries(options).map(([name, value]) => `--${name} ${/^[\w.-]+$/.test(String(value)) ? value : quoted(value)}`).join(' ')}`;
}
