// Byte-level BPE, as GPT-2's: the same tokens as the Python tokenizer gives, for any text.
(() => {
  const LETTER = 1, NUMBER = 2, SPACE = 3, OTHER = 0;
  const SPACES = /^\p{White_Space}$/u;
  const SHORTENED = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]; // pieces of their own: don + 't

  // Every byte as a character one can see: those that are one stay, the others come after U+0100, in order.
  const bytesAsCharacters = () => {
    const shown = [], isShown = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    for (let b = 0, next = 256; b < 256; b++) shown[b] = String.fromCharCode(isShown(b) ? b : next++);
    return shown;
  };
  const OF_BYTE = bytesAsCharacters();
  const TO_BYTE = new Map(OF_BYTE.map((character, byte) => [character, byte]));

  // classes: ranges of code points that are letters (L) and numbers (N) to the Python tokenizer.
  const kindOf = (classes) => {
    const kinds = new Uint8Array(1 + Math.max(...[...classes.L, ...classes.N].map(([, last]) => last)));
    for (const [first, last] of classes.L) kinds.fill(LETTER, first, last + 1);
    for (const [first, last] of classes.N) kinds.fill(NUMBER, first, last + 1);
    return (character) => kinds[character.codePointAt(0)] || (SPACES.test(character) ? SPACE : OTHER);
  };

  // Text in the pieces that no token crosses: words with the space before them, numbers, signs, white space.
  const pieces = (text, kind) => {
    const characters = Array.from(text), kinds = characters.map(kind), found = [], n = characters.length;
    const run = (from, wanted) => {
      let to = from;
      while (to < n && kinds[to] === wanted) to++;
      return to;
    };
    for (let i = 0, to; i < n; i = to) {
      const tail = characters.slice(i, i + 3).join("");
      const short = SHORTENED.find((ending) => tail.startsWith(ending));
      const joined = characters[i] === " " && i + 1 < n && kinds[i + 1] !== SPACE ? i + 1 : i;
      if (short) to = i + short.length;
      else if (kinds[joined] !== SPACE) to = run(joined, kinds[joined]);
      else {
        to = run(i, SPACE);
        if (to < n && to - i > 1) to--; // the last space goes with what follows
      }
      found.push(characters.slice(i, to).join(""));
    }
    return found;
  };

  class Tokenizer {
    constructor({ tokens, merges, special, classes }) {
      this.tokens = tokens;
      this.special = Object.entries(special);
      this.kind = kindOf(classes);
      this.ids = new Map(tokens.map((token, id) => [token, id]));
      this.ranks = new Map(merges.map((pair, rank) => [pair, rank]));
      this.isSpecial = new Set(Object.values(special));
      this.seen = new Map(); // pieces that have been merged before
    }

    // The ids of a text, without BOS.
    encode(text) {
      let parts = [text];
      for (const [name, id] of this.special) {
        parts = parts.flatMap((part) => (typeof part === "number" ? [part] : between(part.split(name), id)));
      }
      return parts.flatMap((part) =>
        typeof part === "number" ? [part] : this.pieces(part).flatMap((piece) => this.merged(piece)));
    }

    pieces(text) {
      return pieces(text, this.kind);
    }

    // One piece as ids: its bytes, of which the pair that was learned first is joined again and again.
    merged(piece) {
      if (this.seen.has(piece)) return this.seen.get(piece);
      const parts = Array.from(new TextEncoder().encode(piece), (byte) => OF_BYTE[byte]);
      for (;;) {
        let best = Infinity;
        for (let i = 0; i + 1 < parts.length; i++) best = Math.min(best, this.rank(parts[i], parts[i + 1]));
        if (best === Infinity) break;
        for (let i = 0; i + 1 < parts.length; i++) {
          if (this.rank(parts[i], parts[i + 1]) === best) parts.splice(i, 2, parts[i] + parts[i + 1]);
        }
      }
      const ids = parts.map((part) => this.ids.get(part));
      if (this.seen.size > 5000) this.seen.clear();
      this.seen.set(piece, ids);
      return ids;
    }

    rank(first, second) {
      return this.ranks.get(`${first} ${second}`) ?? Infinity;
    }

    bytes(id) {
      const token = this.tokens[id];
      return this.isSpecial.has(id) ? new TextEncoder().encode(token)
        : Uint8Array.from(Array.from(token), (character) => TO_BYTE.get(character));
    }

    // The text of several tokens; bytes that are no text become "�", as in Python.
    decode(ids) {
      const all = ids.flatMap((id) => Array.from(this.bytes(id)));
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(all));
    }

    // One token's text, or null when it is a piece of a character.
    text(id) {
      try {
        return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.bytes(id));
      } catch {
        return null;
      }
    }
  }

  const between = (parts, id) => parts.flatMap((part, i) => (i ? [id, part] : [part]));

  live.Tokenizer = Tokenizer;
})();
