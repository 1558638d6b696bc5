// Browsers start no worker from a page that was opened as a file. The search then runs in a hidden
// frame instead, so that it works without a server.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      const inside = frame.contentDocument
      inside.open()
      inside.write("<!doctype html><body>")
      inside.close()
      this.window = frame.contentWindow
      this.window.postMessage = data =>
        this.dispatchEvent(new MessageEvent("message", { data }))
      const script = inside.createElement("script")
      this.ready = new Promise(resolve => (script.onload = resolve))
      script.src = url
      inside.body.appendChild(script)
    }

    postMessage(data) {
      this.ready.then(() =>
        this.window.dispatchEvent(new this.window.MessageEvent("message", { data })))
    }

    terminate() {}
  }
}
