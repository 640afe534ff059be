// Measurements in the format of Prometheus.

/** `{name: [{labels, value}]}` of a page of metrics. */
export function readMetrics(text) {
  const metrics = {};
  for (const line of text.split("\n")) {
    const match = line.match(/^(\w+)(?:\{(.*)\})? (\S+)/);
    if (!match || line.startsWith("#")) continue;
    const [, name, list = "", value] = match;
    const labels = Object.fromEntries([...list.matchAll(/(\w+)="((?:\\.|[^"\\])*)"/g)].map(([, label, text]) => [label, text.replace(/\\(.)/g, "$1")]));
    (metrics[name] ??= []).push({ labels, value: Number(value) });
  }
  return metrics;
}
