// A1111's text in a picture (`parameters`), read into the fields of a request.

/** The fields that the text names: see docs/input.md. Settings that a request does not have are left out. */
export function readInfotext(text) {
  const lines = text.trim().split("\n");
  const hasSettings = /^\s*Steps: \d+/.test(lines.at(-1) ?? "");
  const settings = hasSettings ? readSettings(lines.pop()) : {};
  const at = lines.findIndex((line) => line.startsWith("Negative prompt: "));
  const prompt = lines.slice(0, at < 0 ? undefined : at).join("\n").trim();
  const negative = at < 0 ? "" : lines.slice(at).join("\n").replace("Negative prompt: ", "").trim();
  return { prompt, negative_prompt: negative, ...fields(settings) };
}

/** No program writes a longer line; and what follows takes time that grows with the square of the length. */
const LONGEST_LINE = 16_384;

/** `Name: value` pairs; a value with separators is a JSON string. */
function readSettings(line) {
  const settings = {};
  for (const [, name, value] of line.slice(0, LONGEST_LINE).matchAll(/\s*([\w][\w \-/]{0,60}):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/g)) {
    settings[name.trim()] = value.startsWith('"') ? unquoted(value) : value.trim();
  }
  return settings;
}

function unquoted(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const SPACINGS = {
  "Karras": "karras", "Exponential": "exponential", "Polyexponential": "polyexponential", "SGM Uniform": "sgm_uniform",
  "KL Optimal": "kl_optimal", "Align Your Steps": "align_your_steps", "Simple": "simple", "Normal": "normal",
  "DDIM": "ddim_uniform", "Beta": "beta", "Uniform": "uniform",
};

function fields(settings) {
  const number = (name) => (settings[name] === undefined ? undefined : Number(settings[name]));
  const [width, height] = (settings["Size"] ?? "").split("x").map(Number);
  const [resizeWidth, resizeHeight] = (settings["Seed resize from"] ?? "").split("x").map(Number);
  const found = {
    num_inference_steps: number("Steps"),
    scheduler: settings["Sampler"],
    guidance_scale: number("CFG scale"),
    guidance_rescale: number("CFG Rescale phi"),
    guidance_end: number("CFG end"),
    image_guidance_scale: number("Image CFG scale"),
    // As text: a seed may have more digits than a number holds.
    seed: settings["Seed"],
    width: width || undefined,
    height: height || undefined,
    clip_skip: number("Clip skip"),
    noise: { CPU: "cpu", NV: "cuda" }[settings["RNG"]],
    precision: settings["Precision"],
    prompt_strength: number("Denoising strength"),
    mask_blur: number("Mask blur"),
    subseed: settings["Variation seed"],
    subseed_strength: number("Variation seed strength"),
    seed_resize_width: resizeWidth || undefined,
    seed_resize_height: resizeHeight || undefined,
    eta: number("Eta"),
    vae: settings["VAE Decoder"] === "TAESD" ? "tiny" : undefined,
    cache_interval: number("Cache interval"),
    tiling: settings["Tiling"] === "True" ? true : undefined,
    spacing: SPACINGS[settings["Schedule type"]],
    hires: hires(settings, number),
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined && !Number.isNaN(value)));
}

function hires(settings, number) {
  const scale = number("Hires upscale");
  if (!scale) return undefined;
  return {
    scale,
    ...(settings["Hires upscaler"] && { upscaler: settings["Hires upscaler"] }),
    ...(number("Hires steps") && { steps: number("Hires steps") }),
    ...(number("Denoising strength") && { strength: number("Denoising strength") }),
  };
}
