// A zip file without compression: pictures are compressed already. (PKWARE's APPNOTE, sections 4.3 to 4.5.)

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc >>> 0;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 0xff];
  return (crc ^ 0xffffffff) >>> 0;
}

/** Files go in one by one; the parts of the file are kept as blobs, which a browser may hold on the disk. */
export class Zip {
  constructor(date = new Date()) {
    this.parts = [];
    this.directory = [];
    this.length = 0;
    // MS-DOS time and date, as the format has them.
    this.time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
    this.day = ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
  }

  async add(name, blob) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const path = new TextEncoder().encode(name);
    // Version 2.0, names in UTF-8, stored.
    const common = [[2, 20], [2, 1 << 11], [2, 0], [2, this.time], [2, this.day], [4, crc32(bytes)],
      [4, bytes.length], [4, bytes.length], [2, path.length], [2, 0]];
    const local = record([[4, 0x04034b50], ...common]);
    this.directory.push(record([[4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, this.length]]), path);
    this.parts.push(local, path, blob);
    this.length += local.length + path.length + bytes.length;
    this.count = (this.count ?? 0) + 1;
  }

  blob() {
    const size = this.directory.reduce((sum, part) => sum + part.length, 0);
    const end = record([[4, 0x06054b50], [2, 0], [2, 0], [2, this.count], [2, this.count], [4, size], [4, this.length], [2, 0]]);
    return new Blob([...this.parts, ...this.directory, end], { type: "application/zip" });
  }
}

/** Numbers of two or four bytes, the lowest first. */
function record(fields) {
  const bytes = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return bytes;
}
