// What `Client` and `Subscription` share as event targets: how they dispatch events, and the key of their constructors.
// Knows no other module. Called by every module that reports something to the application.

/** Allows only this package to construct clients and subscriptions. */
export const INTERNAL = Symbol("quic-websocket");

/**
 * Dispatches a `CustomEvent`.
 *
 * @param {EventTarget | null} target
 * @param {string} type
 * @param {unknown} detail
 */
export function emit(target, type, detail) {
  target?.dispatchEvent(new CustomEvent(type, { detail }));
}
