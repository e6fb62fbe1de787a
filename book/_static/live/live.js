// The live page: a language model and a sparse autoencoder that run in the reader's own browser. No framework, and no
// modules: a browser does not load those from the disk, and the page has to work when it is opened from there.
//
//   tokenizer.js  text -> tokens        loading.js  fetches the weights when asked
//   engine.js     tokens -> numbers     view.js     numbers -> HTML        page.js  puts it all together
//
// manifest.js and the parts it names are written when the site is built.
window.live = {};
