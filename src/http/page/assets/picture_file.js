// A picture from a file, the clipboard or this page, made ready to be sent.

import { h } from "./element.js";
import { words } from "./words.js";

/** A request has up to 10 MB, and base64 makes four bytes of three. */
const LARGEST = 3_000_000;
const LONGEST_SIDE = 2048;
const SENT_AS_IS = ["image/png", "image/jpeg", "image/webp"];

/** `{uri, width, height}` of a picture file. A large one is drawn smaller. Fails with a sentence. */
export async function readPicture(blob) {
  if (blob.size > 64 << 20) throw new Error(words.tooLarge);
  const bitmap = await createImageBitmap(blob).catch(() => null);
  if (!bitmap) throw new Error(words.notAPicture);
  const { width, height } = bitmap;
  if (SENT_AS_IS.includes(blob.type) && blob.size <= LARGEST && width * height <= 33e6) {
    bitmap.close();
    return { uri: await dataUri(blob), width, height };
  }
  const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  const canvas = h("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return { uri: canvas.toDataURL("image/jpeg", 0.93), width: canvas.width, height: canvas.height };
}

function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(words.notAPicture));
    reader.readAsDataURL(blob);
  });
}

/** The picture of a data URI as an image that is loaded. */
export async function loadImage(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  return image;
}

/** The first picture among what was dropped or pasted. */
export function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? null;
}

/** A button that asks for a picture file. */
export function choosePicture(label, taken) {
  const input = h("input", {
    type: "file", accept: "image/*", hidden: true,
    onchange: () => {
      const [file] = input.files;
      input.value = "";
      if (file) taken(file);
    },
  });
  return h("span", {}, input, h("button", { type: "button", class: "quiet", onclick: () => input.click() }, label));
}
