// Fetches the weights when the reader asks for them: one script after another, so that progress can be shown, and so
// that it works without a server, too.
(() => {
  const here = document.currentScript.src;
  const received = new Map();
  live.receive = (name, content) => received.set(name, content); // the parts call this

  const fetchPart = (part) => new Promise((done, failed) => {
    if (received.has(part.name)) return done();
    const script = document.createElement("script");
    script.src = new URL(part.file, here).href;
    script.onload = () => {
      script.remove();
      if (received.has(part.name)) done();
      else failed(new Error(`${part.file} is damaged`));
    };
    script.onerror = () => {
      script.remove();
      failed(new Error(`${part.file} could not be loaded`));
    };
    document.head.append(script);
  });

  // One after another into one array; base64 is what a script can hold.
  const joined = (manifest) => {
    const bytes = new Uint8Array(manifest.weightBytes);
    let at = 0;
    for (const { name } of manifest.parts.filter((part) => part.name !== "words")) {
      const text = atob(received.get(name));
      for (let i = 0; i < text.length; i++) bytes[at++] = text.charCodeAt(i);
      received.delete(name); // twice in memory is once too often
    }
    return bytes;
  };

  const pause = () => new Promise((done) => setTimeout(done)); // lets the browser show what was said

  // Everything the page needs. `say` is told what is going on, and how many of how many bytes are here.
  live.load = async (say) => {
    const { manifest } = live, total = manifest.bytes;
    let loaded = 0;
    for (const part of manifest.parts) {
      say("Loading", loaded, total);
      await fetchPart(part);
      loaded += part.bytes;
    }
    say("Unpacking", total, total);
    await pause();
    const words = received.get("words");
    return { model: new live.Model(manifest, joined(manifest)), tokenizer: new live.Tokenizer(words), words };
  };
})();
