// A GPT-2 and a TopK SAE in plain arrays: the same numbers as torch computes, one row of numbers for each token.
(() => {
  const NUMBERS = new Float32Array(65536); // all half-precision numbers there are
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    NUMBERS[bits] = sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
  }

  // Half-precision numbers, low byte first, as the 32-bit numbers that arithmetic is done with.
  const unpack = (bytes) => {
    const numbers = new Float32Array(bytes.length / 2);
    for (let i = 0; i < numbers.length; i++) numbers[i] = NUMBERS[bytes[2 * i] | (bytes[2 * i + 1] << 8)];
    return numbers;
  };

  // A matrix [k, m] as [m, k].
  const turned = (matrix, k, m) => {
    const other = new Float32Array(k * m);
    for (let p = 0; p < k; p++) for (let j = 0; j < m; j++) other[j * k + p] = matrix[p * m + j];
    return other;
  };

  // x [n, k] times the columns [m, k], plus bias [m]: [n, m]. m is a multiple of four. Nearly all the time is spent
  // here, so two rows and four columns are done at once: what is read from memory is used several times.
  const product = (x, columns, bias, n, k, m) => {
    const y = new Float32Array(n * m);
    for (let j = 0; j < m; j += 4) {
      const w0 = j * k, w1 = w0 + k, w2 = w1 + k, w3 = w2 + k;
      let i = 0;
      for (; i + 1 < n; i += 2) {
        const x0 = i * k, x1 = x0 + k, y0 = i * m + j, y1 = y0 + m;
        let a0 = bias[j], a1 = bias[j + 1], a2 = bias[j + 2], a3 = bias[j + 3];
        let b0 = a0, b1 = a1, b2 = a2, b3 = a3;
        for (let p = 0; p < k; p++) {
          const a = x[x0 + p], b = x[x1 + p];
          const c0 = columns[w0 + p], c1 = columns[w1 + p], c2 = columns[w2 + p], c3 = columns[w3 + p];
          a0 += a * c0; a1 += a * c1; a2 += a * c2; a3 += a * c3;
          b0 += b * c0; b1 += b * c1; b2 += b * c2; b3 += b * c3;
        }
        y[y0] = a0; y[y0 + 1] = a1; y[y0 + 2] = a2; y[y0 + 3] = a3;
        y[y1] = b0; y[y1 + 1] = b1; y[y1 + 2] = b2; y[y1 + 3] = b3;
      }
      if (i < n) { // the last of an odd number of rows, or the only one
        const x0 = i * k, y0 = i * m + j;
        let a0 = bias[j], a1 = bias[j + 1], a2 = bias[j + 2], a3 = bias[j + 3];
        for (let p = 0; p < k; p++) {
          const a = x[x0 + p];
          a0 += a * columns[w0 + p]; a1 += a * columns[w1 + p];
          a2 += a * columns[w2 + p]; a3 += a * columns[w3 + p];
        }
        y[y0] = a0; y[y0 + 1] = a1; y[y0 + 2] = a2; y[y0 + 3] = a3;
      }
    }
    return y;
  };

  const normalised = (x, gain, bias, n, d, epsilon) => {
    const y = new Float32Array(n * d);
    for (let start = 0; start < n * d; start += d) {
      let mean = 0, variance = 0;
      for (let j = 0; j < d; j++) mean += x[start + j] / d;
      for (let j = 0; j < d; j++) variance += (x[start + j] - mean) * (x[start + j] - mean) / d;
      const scale = 1 / Math.sqrt(variance + epsilon);
      for (let j = 0; j < d; j++) y[start + j] = (x[start + j] - mean) * scale * gain[j] + bias[j];
    }
    return y;
  };

  const SLOPE = Math.sqrt(2 / Math.PI);
  const gelu = (x) => { // in place; the approximation with tanh that GPT-2 was trained with
    for (let i = 0; i < x.length; i++) {
      const v = x[i];
      x[i] = 0.5 * v * (1 + Math.tanh(SLOPE * (v + 0.044715 * v * v * v)));
    }
    return x;
  };

  const add = (x, y) => { // in place
    for (let i = 0; i < x.length; i++) x[i] += y[i];
  };

  const softmax = (logits) => {
    const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
    const shares = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
    const total = shares.reduce((a, b) => a + b, 0);
    return shares.map((share) => share / total);
  };

  const TURNED = /\.(c_attn|c_proj|c_fc)\.weight$|^sae\.W_enc$/; // matrices that rows are multiplied by

  class Model {
    // config: the manifest; bytes: all weights, in the order that the manifest gives.
    constructor(config, bytes) {
      this.config = config;
      const numbers = unpack(bytes);
      this.weights = {};
      for (const [name, shape, offset] of config.tensors) {
        const tensor = numbers.subarray(offset, offset + shape.reduce((a, b) => a * b, 1));
        this.weights[name] = TURNED.test(name) ? turned(tensor, ...shape) : tensor;
      }
      this.nothing = new Float32Array(config.vocabulary); // where a product has no bias
    }

    // What a run remembers of the tokens it has read: keys and values of every layer, and how many tokens there are.
    memory(from = 0, to = this.config.layers) {
      const { context, width } = this.config, room = () => new Float32Array(context * width), layers = {};
      for (let layer = from; layer < to; layer++) layers[layer] = { keys: room(), values: room() };
      return { n: 0, from, to, layers };
    }

    copy(memory) {
      const layers = {};
      for (const [layer, { keys, values }] of Object.entries(memory.layers)) {
        layers[layer] = { keys: keys.slice(), values: values.slice() };
      }
      return { ...memory, layers };
    }

    // The layers that a memory covers, applied to the residual stream x of new tokens, [n, width], in place.
    run(memory, x) {
      const { width: d, inner, epsilon } = this.config, n = x.length / d;
      for (let layer = memory.from; layer < memory.to; layer++) {
        const of = (name) => this.weights[`h.${layer}.${name}`];
        const linear = (input, name, rows, columns) =>
          product(input, of(`${name}.weight`), of(`${name}.bias`), n, rows, columns);
        const norm = (name) => normalised(x, of(`${name}.weight`), of(`${name}.bias`), n, d, epsilon);
        const asked = linear(norm("ln_1"), "attn.c_attn", d, 3 * d);
        const looked = this.attention(memory.layers[layer], memory.n, asked, n);
        add(x, linear(looked, "attn.c_proj", d, d));
        add(x, linear(gelu(linear(norm("ln_2"), "mlp.c_fc", d, inner)), "mlp.c_proj", inner, d));
      }
      memory.n += n;
      return x;
    }

    // What each new token reads from itself and from those before it, [n, width]; qkv: [n, 3 · width].
    attention({ keys, values }, before, qkv, n) {
      const { width: d, heads } = this.config, size = d / heads, scale = 1 / Math.sqrt(size);
      const read = new Float32Array(n * d), scores = new Float64Array(before + n);
      for (let i = 0; i < n; i++) {
        keys.set(qkv.subarray(i * 3 * d + d, i * 3 * d + 2 * d), (before + i) * d);
        values.set(qkv.subarray(i * 3 * d + 2 * d, (i + 1) * 3 * d), (before + i) * d);
      }
      for (let i = 0; i < n; i++) {
        const last = before + i;
        for (let head = 0, at = 0; head < heads; head++, at += size) {
          let largest = -Infinity, total = 0;
          for (let j = 0; j <= last; j++) {
            let dot = 0;
            for (let c = 0; c < size; c++) dot += qkv[i * 3 * d + at + c] * keys[j * d + at + c];
            scores[j] = dot * scale;
            if (scores[j] > largest) largest = scores[j];
          }
          for (let j = 0; j <= last; j++) total += scores[j] = Math.exp(scores[j] - largest);
          for (let j = 0; j <= last; j++) {
            const share = scores[j] / total;
            for (let c = 0; c < size; c++) read[i * d + at + c] += share * values[j * d + at + c];
          }
        }
      }
      return read;
    }

    // A memory of the layers below the hook point, and one of those above it.
    below() { return this.memory(0, this.config.hookLayer); }
    above() { return this.memory(this.config.hookLayer, this.config.layers); }

    // Activations at the hook point, [n, width], of tokens that follow those in `memory` (see `below`).
    activations(memory, ids) {
      const { width: d } = this.config, x = new Float32Array(ids.length * d);
      const tokens = this.weights["wte.weight"], places = this.weights["wpe.weight"];
      ids.forEach((id, i) => {
        for (let j = 0; j < d; j++) x[i * d + j] = tokens[id * d + j] + places[(memory.n + i) * d + j];
      });
      return this.run(memory, x);
    }

    // The last residual stream, normalised, [n, width], from activations at the hook point (see `above`). `push`,
    // [width], is added at every token but the first, which is BOS.
    finish(memory, activations, push = null) {
      const { width: d, epsilon } = this.config, x = activations.slice();
      if (push) {
        for (let i = memory.n ? 0 : 1; i < x.length / d; i++) for (let j = 0; j < d; j++) x[i * d + j] += push[j];
      }
      this.run(memory, x);
      return normalised(x, this.weights["ln_f.weight"], this.weights["ln_f.bias"], x.length / d, d, epsilon);
    }

    // Logits of the token that follows row i of what `finish` gave, [vocabulary].
    logits(final, i) {
      const { width: d, vocabulary } = this.config, row = final.subarray(i * d, (i + 1) * d);
      return product(row, this.weights["wte.weight"], this.nothing, 1, d, vocabulary);
    }

    // The SAE's encoder before TopK, [n, latents].
    encoded(activations) {
      const { width: d, latents, centred } = this.config, x = activations.slice();
      const bias = this.weights["sae.b_dec"];
      if (centred) for (let i = 0; i < x.length; i++) x[i] -= bias[i % d];
      return product(x, this.weights["sae.W_enc"], this.weights["sae.b_enc"], x.length / d, d, latents);
    }

    // For each token its active latents, strongest first: [[latent, activation], ...].
    features(activations) {
      const { latents, k } = this.config, before = this.encoded(activations), found = [];
      for (let start = 0; start < before.length; start += latents) {
        const row = before.subarray(start, start + latents), bar = Float32Array.from(row).sort()[latents - k];
        const active = [];
        row.forEach((value, latent) => { if (value >= bar && value > 0) active.push([latent, value]); });
        found.push(active.sort((a, b) => b[1] - a[1]).slice(0, k));
      }
      return found;
    }

    // What a latent pushed by `amount` adds to an activation, [width]: amount times its decoder row.
    direction(latent, amount) {
      const { width: d } = this.config;
      return this.weights["sae.W_dec"].slice(latent * d, (latent + 1) * d).map((x) => x * amount);
    }

    // The control: a random direction, uniform over all directions, as long as `push`.
    randomLike(push, seed) {
      const dice = uniform(seed), length = (v) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));
      const normal = () => Math.sqrt(-2 * Math.log(1 - dice())) * Math.cos(2 * Math.PI * dice());
      const direction = Float64Array.from(push, normal), scale = length(push) / length(direction);
      return Float32Array.from(direction, (x) => x * scale);
    }
  }

  // Numbers from 0 to 1, the same ones for the same seed (mulberry32).
  const uniform = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  Object.assign(live, { Model, softmax });
})();
