// One request until its reply, and the order in which requests wait.
// Sends nothing. Made by requests, subscriptions and heartbeat; sent by links.

/** @import { QwsError } from "./errors.js" */
/** @import { Json, Reply } from "./frames.js" */
/** @import { Link } from "./link.js" */
/** @import { Pace } from "./pace.js" */

/** Number of calls made: waiting calls keep this order. */
let callsMade = 0;

/** A request, until it has its reply. */
export class Call {
  id = 0;
  order = (callsMade += 1);
  /** The connection on which it was sent. @type {Link | null} */
  link = null;
  /** The pace it counts for; `null` for what the connection itself needs. @type {Pace | null} */
  pace = null;
  sentAt = 0;
  deadline = 0;
  /** Belongs to one connection, and ends with it. */
  isOrder = false;
  /** Sent, and not answered. */
  isUnderWay = false;
  /** Whether another client answers it, which may take long: the lane is read on meanwhile. */
  isAsk = false;
  /** Whether the server has read it, and only the other client's answer is missing. */
  isTaken = false;
  /** Fields that depend on when it is sent. @type {() => Json} */
  late = () => ({});
  /** Whether to send it again after an `error` 429. @type {() => boolean} */
  isWanted = () => true;
  /** Called when it waits for its turn after an `error` 429. @type {() => void} */
  whenPutOff = () => {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  timer;
  /** The last `error` 429 that it got. @type {QwsError | null} */
  refusal = null;

  /**
   * @param {Json} message
   * @param {Uint8Array | undefined} attachment
   * @param {boolean} again whether it may be sent again if its reply was lost
   * @param {(error: QwsError | null, reply?: Reply) => void} done
   */
  constructor(message, attachment, again, done) {
    this.message = message;
    this.attachment = attachment;
    this.again = again;
    this.done = done;
  }

  /** `unsubscribe` frees memory of the server, and `refresh` keeps the connection: they go before the others. */
  get isUrgent() {
    return this.message.type === "unsubscribe" || this.message.type === "refresh";
  }
}

/**
 * Puts a request in its place in a queue: urgent ones first, then in the order in which they were made.
 *
 * @param {Call[]} queue
 * @param {Call} call
 */
export function enqueue(queue, call) {
  const isBehind = (/** @type {Call} */ other) =>
    other.isUrgent === call.isUrgent ? other.order > call.order : call.isUrgent;
  const last = queue.at(-1);
  const at = last && isBehind(last) ? queue.findIndex(isBehind) : queue.length;
  queue.splice(at, 0, call);
}
