// A WebSocket server on Node's package `ws`, as a peer in the benchmark: it sends a message that begins with "B" to
// every client, and echoes any other. Arguments: the folder with the package, and the files of certificate and key.

import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { createRequire } from "node:module";

const [folder, certificate, key] = process.argv.slice(2);
const { WebSocketServer } = createRequire(`${folder}/`)("ws");
const BROADCAST = "B".charCodeAt(0);

const https = createServer({ cert: readFileSync(certificate), key: readFileSync(key), minVersion: "TLSv1.3" });
const server = new WebSocketServer({ server: https, path: "/ws", perMessageDeflate: false, maxPayload: 16 << 20 });

// Connections with messages that are written together at the end of this turn of the event loop.
const corked = new Set();

function uncork() {
    for (const connection of corked) connection.uncork();
    corked.clear();
}

function send(socket, message, binary) {
    const { connection } = socket;
    if (!corked.has(connection)) {
        if (corked.size === 0) setImmediate(uncork);
        corked.add(connection);
        connection.cork();
    }
    socket.send(message, { binary });
}

server.on("connection", (socket, request) => {
    socket.connection = request.socket;
    // A client that breaks off is not reported here: the generator reports missing messages.
    socket.on("error", () => {});
    socket.on("message", (message, binary) => {
        if (message[0] !== BROADCAST) return send(socket, message, binary);
        for (const client of server.clients) send(client, message, binary);
    });
});

https.on("tlsClientError", () => {});
https.listen(0, "127.0.0.1", () => console.log(`Listening on: 127.0.0.1:${https.address().port}`));

// It never outlives its comparison.
process.stdin.on("end", () => process.exit()).resume();
