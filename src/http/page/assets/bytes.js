// Sizes in bytes as people read them.

export function bytesText(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log(Math.max(1, bytes)) / Math.log(1000)));
  return `${(bytes / 1000 ** power).toPrecision(3)} ${units[power]}`;
}
