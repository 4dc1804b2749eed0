/**
 * A client of a quic-websocket server, for browsers (WebTransport and WebSocket) and Node (WebSocket). ES modules
 * without dependencies and without a build step: this file exports what the modules in qws/ define. The types are in
 * qws.d.ts, the protocol in docs/PROTOCOL.md, how to use it in README.md.
 *
 * @module
 */

export { Client, connect } from "./qws/client.js";
export { QwsError } from "./qws/errors.js";
export { internals } from "./qws/internals.js";
export { JsonText } from "./qws/json-text.js";
export { Subscription } from "./qws/subscription.js";
