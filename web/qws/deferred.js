// Promises that are settled from outside, and promises whose rejection may be ignored.
// Knows nothing of the protocol. Called by every module that waits for something.

/** @import { QwsError } from "./errors.js" */

/** A rejected promise that may be ignored. @param {Error} error @returns {Promise<never>} */
export function failed(error) {
  return quiet(Promise.reject(error));
}

/**
 * A promise whose rejection may be ignored.
 *
 * @template T
 * @param {Promise<T>} promise
 */
export function quiet(promise) {
  promise.catch(() => {});
  return promise;
}

/**
 * A promise that is settled from outside. An ignored rejection is no unhandled rejection.
 *
 * @template T
 */
export class Deferred {
  /** @type {(value: T) => void} */
  resolve = () => {};
  /** @type {(error: QwsError) => void} */
  reject = () => {};
  isSettled = false;

  constructor() {
    /** @type {Promise<T>} */
    this.promise = new Promise((resolve, reject) => {
      this.resolve = (value) => {
        this.isSettled = true;
        resolve(value);
      };
      this.reject = (error) => {
        this.isSettled = true;
        reject(error);
      };
    });
    this.promise.catch(() => {});
  }
}
