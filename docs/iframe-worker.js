// A browser starts no worker for a page that is opened from a file, so there the search runs in a hidden frame.
// mkdocs-material's plugin `offline` would load such a script from unpkg.com; the site loads nothing from elsewhere.
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    this.frame = document.createElement("iframe");
    this.frame.hidden = true;
    document.body.appendChild(this.frame);
    const inside = this.frame.contentWindow;
    const page = inside.document;
    page.open();
    page.write("<html><body></body></html>");
    page.close();
    inside.postMessage = message => this.dispatchEvent(new MessageEvent("message", { data: structuredClone(message) }));
    inside.importScripts = (...urls) => urls.reduce((before, one) => before.then(() => load(page, one)), Promise.resolve());
    this.ready = load(page, url);
  }

  postMessage(message) {
    this.ready.then(() => this.frame.contentWindow.dispatchEvent(
      new this.frame.contentWindow.MessageEvent("message", { data: structuredClone(message) })));
  }

  terminate() {
    this.frame.remove();
  }
}

function load(page, url) {
  return new Promise(resolve => {
    const script = page.createElement("script");
    script.src = url;
    script.onload = resolve;
    page.body.appendChild(script);
  });
}

if (location.protocol === "file:") window.Worker = FrameWorker;
