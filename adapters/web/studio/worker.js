// Shared worker: one event stream for all tabs, since browsers allow six connections per host.

import { Live } from "./live.js";

const lives = new Map(); // by key
const ports = new Map(); // port to key

function tell(key, message) {
  for (const [port, its] of ports) if (its === key) port.postMessage(message);
}

function join(port, key) {
  if (key === null) {
    const known = [...lives].find(([its, live]) => its !== null && live.link === "live");
    if (known) { port.postMessage({ type: "key", key: known[0] }); return; }
  }
  ports.set(port, key);
  let live = lives.get(key);
  if (live?.link === "key") { live.stop(); live = undefined; }
  if (!live) { live = new Live((message) => tell(key, message), key); lives.set(key, live); }
  port.postMessage(live.state());
  rest();
}

function rest() {
  for (const [key, live] of lives) if (![...ports.values()].includes(key)) { live.stop(); lives.delete(key); }
}

self.onconnect = ({ ports: [port] }) => {
  port.onmessage = ({ data }) => {
    if (data.type === "join") join(port, data.key);
    else if (data.type === "leave") { ports.delete(port); rest(); }
    else if (data.type === "wake") lives.get(ports.get(port))?.wake();
  };
};
