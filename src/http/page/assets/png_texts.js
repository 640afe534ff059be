// The texts of a PNG file: tEXt, zTXt and iTXt chunks (PNG specification, section 11.3.3).

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
/** A text is a prompt and some settings; a longer one is not ours. */
const LONGEST = 1 << 20;

/** The texts by keyword. Empty if the bytes are no PNG file. */
export async function pngTexts(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const view = new DataView(bytes.buffer);
  const texts = {};
  if (!SIGNATURE.every((byte, at) => bytes[at] === byte)) return texts;
  let at = 8;
  while (at + 12 <= bytes.length) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (data.length < length || type === "IEND") break;
    if (["tEXt", "zTXt", "iTXt"].includes(type) && length <= LONGEST) {
      const [keyword, text] = await read(type, data).catch(() => [null, null]);
      if (keyword) texts[keyword] = text;
    }
    at += length + 12;
  }
  return texts;
}

async function read(type, data) {
  const latin1 = new TextDecoder("latin1");
  const utf8 = new TextDecoder();
  const end = data.indexOf(0);
  const keyword = latin1.decode(data.subarray(0, end));
  if (type === "tEXt") return [keyword, latin1.decode(data.subarray(end + 1))];
  if (type === "zTXt") return [keyword, latin1.decode(await inflate(data.subarray(end + 2)))];
  const isCompressed = data[end + 1] === 1;
  const language = data.indexOf(0, end + 3);
  const translated = data.indexOf(0, language + 1);
  const text = data.subarray(translated + 1);
  return [keyword, utf8.decode(isCompressed ? await inflate(text) : text)];
}

/** Inflates, but no more than a text may have. */
async function inflate(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const parts = [];
  let length = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > LONGEST) throw new RangeError("too long");
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
