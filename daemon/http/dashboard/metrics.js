// The text that Prometheus reads, as numbers: sums over labels, and what happened between two
// readings. Names are without "corpusd_".

const SAMPLE = /^corpusd_([a-z0-9_]+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-z_]+)="((?:[^"\\]|\\.)*)"/g;

export class Metrics {
  constructor(text, timeMs) {
    this.timeMs = timeMs;
    this.samples = new Map(); // name -> [{labels, value}]
    for (const line of text.split("\n")) {
      const found = SAMPLE.exec(line);
      if (!found) continue;
      const labels = {};
      for (const [, name, value] of (found[2] || "").matchAll(LABEL)) labels[name] = value;
      if (!this.samples.has(found[1])) this.samples.set(found[1], []);
      const value = Number(found[3].replace("+Inf", "Infinity"));
      this.samples.get(found[1]).push({ labels, value });
    }
  }

  sum(name, labels = {}) {
    const wanted = Object.entries(labels);
    return (this.samples.get(name) || [])
      .filter((sample) => wanted.every(([label, value]) => sample.labels[label] === value))
      .reduce((sum, sample) => sum + sample.value, 0);
  }

  // [upper bound, how many up to it], rising.
  buckets(name) {
    return (this.samples.get(`${name}_bucket`) || [])
      .map((sample) => [Number(sample.labels.le.replace("+Inf", "Infinity")), sample.value])
      .sort((a, b) => a[0] - b[0]);
  }
}

// As Prometheus' histogram_quantile, of what came between two readings; null: nothing did.
export function quantileBetween(before, now, name, quantile) {
  const old = before.buckets(name), buckets = now.buckets(name);
  const between = buckets.map(([bound, count], i) => [bound, count - (old[i]?.[1] ?? 0)]);
  const total = between.length ? between[between.length - 1][1] : 0;
  if (total <= 0) return null;
  const rank = quantile * total;
  let lower = 0, below = 0;
  for (const [bound, count] of between) {
    if (!Number.isFinite(bound)) return lower;
    if (count > below && count >= rank) {
      return lower + (bound - lower) * (rank - below) / (count - below);
    }
    lower = bound;
    below = count;
  }
  return lower;
}

export function Rates(before, now) {
  const seconds = Math.max((now.timeMs - before.timeMs) / 1000, 0.001);
  // A daemon that was started anew counts from 0.
  const rate = (name, labels) =>
    Math.max(now.sum(name, labels) - before.sum(name, labels), 0) / seconds;
  const cached = rate("tokens_total", { result: "cached" });
  const recomputed = rate("tokens_total", { result: "recomputed" });
  return {
    firstToken: quantileBetween(before, now, "first_token_seconds", 0.5),
    firstToken95: quantileBetween(before, now, "first_token_seconds", 0.95),
    hitRatio: cached + recomputed > 0 ? cached / (cached + recomputed) : null,
    answerTokens: rate("tokens_total", { result: "completion" }),
    prefillTokens: rate("prefill_tokens_total", { result: "computed" }),
  };
}
