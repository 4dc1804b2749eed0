/**
 * A client of a quic-websocket server, for browsers (WebTransport and WebSocket) and Node (WebSocket).
 * Objects from the server have the field names of its protocol (docs/PROTOCOL.md).
 */

// These declarations need only the ES2022 library. If the DOM library or Node's types are loaded, events and event
// targets are theirs.

/** The platform's event; without its types, the part of it that a listener needs. */
type PlatformEvent = typeof globalThis extends { CustomEvent: { prototype: infer Event } }
  ? Omit<Event, "detail">
  : { readonly type: string };

/** An event of a client or a subscription: a `CustomEvent`. */
export type QwsEvent<Detail> = PlatformEvent & { readonly detail: Detail };

/** The platform's `EventTarget`; without its types, the part of it that is needed. */
type PlatformEventTarget = typeof globalThis extends { EventTarget: { prototype: infer Target } }
  ? Target
  : { dispatchEvent(event: any): boolean };

/** A `URL`, or any object with an address. */
export interface UrlLike {
  readonly href: string;
}

/** An `AbortSignal`, which removes a listener. */
export interface AbortSignalLike {
  readonly aborted: boolean;
  addEventListener(type: "abort", listener: () => void, options?: { once?: boolean }): void;
}

export interface ListenerOptions {
  capture?: boolean;
  once?: boolean;
  passive?: boolean;
  signal?: AbortSignalLike;
}

/** An event listener: a function, or an object with `handleEvent`. */
export type Listener<Event> = ((event: Event) => void) | { handleEvent(event: Event): void };

/** The transport of a connection. */
export type Carrier = "webtransport" | "websocket";

/** A place in a topic's log. Compare epochs only for equality; offsets grow, not always by one. */
export interface Position {
  epoch: string;
  offset: number;
}

export interface ConnectOptions {
  /** The name shown to other clients: 1 to 64 characters. */
  name?: string;
  /**
   * The access token; whitespace around it is removed. A function is called at each connect and before the token
   * expires. If it throws, returns no token, takes longer than 10 seconds, or returns one that the server rejects
   * (4401), the client tries again with backoff. `undefined` connects without a token.
   */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /** Carriers to use. Default: both, if the platform has them; on WebKit only WebSocket, see `webTransportOnWebKit`. */
  carriers?: Carrier[];
  /**
   * Use WebTransport on WebKit too (Safari, and every browser on iOS). Default false: its sessions stop for good after
   * about 16 MiB or 7,600 streams (WebKit bug 319818).
   */
  webTransportOnWebKit?: boolean;
  /** Replaces the derived `https://host:port/wt`. */
  webTransportUrl?: string | UrlLike;
  /** Replaces the derived `wss://host:port/ws`. */
  webSocketUrl?: string | UrlLike;
  /** Hash of the certificate to trust for WebTransport, in base64. `false`: do not ask the server for it. */
  certificateHash?: { algorithm: "sha-256"; value: string } | false;
  /** A WebSocket class, if there is no global one: Node before 22, with `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => any;
  /** Head start of QUIC before WebSocket is tried at the same time. Default 200. */
  raceDelayMs?: number;
  /** If both are tried: time after which WebSocket is used although QUIC may still connect. Default 800. */
  settleMs?: number;
  /**
   * On WebSocket: delay until QUIC is tried again in the background; up to 16 times as long after further failures.
   * 0: never. Default 60000.
   */
  retryQuicMs?: number;
  /** Longest delay before a try to reconnect. Default 20000. */
  maxBackoffMs?: number;
  /** Time limit for a reply, reconnects included; `Infinity`: none. Default 15000. */
  requestTimeoutMs?: number;
  /** Most messages of one subscription that wait for their reader. Default 1024. */
  highWaterMark?: number;
  /** Answers requests that other clients address to this one or to its user. */
  onRequest?: RequestHandler;
  /**
   * Let the server compress what it sends (deflate), if the platform can undo that: fewer bytes, and more CPU time on
   * both sides. Default true.
   */
  compression?: boolean;
  /**
   * On WebSocket, open a second one for subscriptions with `lane: "bulk"`: long messages there hold up none on the
   * first. If it cannot be opened within 2 seconds, or ends, the first one brings them. Default false.
   */
  bulkSocket?: boolean;
}

export interface SubscribeOptions {
  /** Replay the messages after this position; not with a pattern. */
  since?: Position;
  /** Replay the messages from this time on, in Unix milliseconds; not with `since`, and not with a pattern. */
  sinceTime?: number;
  /** Replay this many of the newest messages first; together with `since`, only if that cannot be recovered. */
  recent?: number;
  /** "stream": reliable and in order; "datagram": the newest wins. Default "stream". */
  delivery?: "stream" | "datagram";
  /**
   * The lane for the messages. "bulk": the second WebSocket (`bulkSocket`), while there is one; on QUIC as "own".
   * Default "own".
   */
  lane?: "own" | "control" | "bulk";
  /** Also fire "join", "leave", "state" and "return"; with "counts", "occupancy" instead, which names no member. */
  presence?: boolean | "counts";
  /** Keep the topic's members in `subscription.members`, and fire "members" when they change. Implies `presence`. */
  members?: boolean;
  /** This client's first state on the topic, for the other members: any JSON value of at most 1 KiB. */
  state?: unknown;
  /** Answers requests to the topic; `client.serve` does the same, for a client that reads no messages. */
  onRequest?: RequestHandler;
  /** Most messages per second of each topic, 1 to 1000: the newest of each interval; the others are left out. */
  maxRate?: number;
  /** `false`: without what this client publishes itself. Default true. */
  echo?: boolean;
  /** Only messages whose `meta` has all these fields, at most 8: an equal value, or a text that begins so. */
  filter?: { [field: string]: string | number | boolean | { prefix: string } };
  /** Most messages that wait for their reader. Default: the client's. */
  highWaterMark?: number;
  /**
   * Take the messages from the durable consumer of this name, which the server remembers: each comes again until it is
   * acknowledged (`ack`). 1 to 64 of `A-Z a-z 0-9 _ -`. The first subscription creates it, at `since`, `sinceTime` or
   * `recent`. Not with a pattern, nor with `delivery: "datagram"`.
   */
  durable?: string;
  /**
   * Share the messages, so that each goes to one client: among those of the durable consumer, or without `durable`
   * among all that share the topic, at most once and without acknowledgements.
   */
  share?: boolean;
  /** What one `ack` covers; "upto": all messages before as well. Fixed at the consumer's creation. Default "each". */
  ack?: "each" | "upto";
  /** Time after which a message without `ack` comes again, 1000 to 3600000. Fixed at creation. Default 30000. */
  ackWaitMs?: number;
  /** Most messages delivered and not acknowledged, 1 to 1000. Fixed at creation. Default 100. */
  maxInFlight?: number;
  /** Most deliveries of a message before it goes to the dead-letter topic; 0: any number. Fixed at creation. */
  maxDeliver?: number;
}

/** Messages to acknowledge: by themselves or by their offsets, at most 1000. */
export type Acked = number | Message | (number | Message)[];

export interface AckOptions {
  /** "done": never again; "retry": again; "reject": never again, and to the dead-letter topic. Default "done". */
  outcome?: "done" | "retry" | "reject";
  /** With "retry": time before it is delivered again, at most a day. Default: at once. */
  delayMs?: number;
}

/** Messages that this client may send to other clients. */
export interface Permissions {
  broadcast: boolean;
  direct: boolean;
  signal: boolean;
  list_clients: boolean;
}

/** The server's limits. */
export interface Limits {
  max_message_bytes: number;
  ping_interval_ms: number;
  ping_timeout_ms: number;
  max_request_lanes: number;
  max_unfinished_bytes?: number;
  max_pending_replies?: number;
  /** Longest `meta` of a message; absent from older servers, which know neither `meta` nor JSON values. */
  max_meta_bytes?: number;
  /** Most requests to other clients that may be open at once. */
  max_open_requests?: number;
  [other: string]: number | undefined;
}

/**
 * What a client has said: a text, a JSON value, bytes, or several of them. The server vouches for `from`, `user` and
 * `name`.
 */
export interface Content {
  /** The client's id; absent if no client has said it. */
  from?: string;
  /** The user that the client has proved to be. */
  user?: string;
  /** The user's name, as others see it; an anonymous client has none here, whatever name it gave. */
  name?: string;
  /** The text, if one was sent. */
  readonly text: string | undefined;
  /** The text, under its name in the protocol. */
  content?: string;
  /** The JSON value, if one was sent; it may be `null`. */
  data?: any;
  /** The JSON value as it was sent: in `data`, numbers beyond 2^53 are not exact. */
  readonly json: string | undefined;
  /** The bytes, if any were sent. */
  bytes?: Uint8Array;
  /** What the sender says about it: the name of an event, headers, trace ids. */
  meta?: { [field: string]: any };
}

/** A message of a topic. */
export interface Message extends Content {
  topic: string;
  offset: number;
  /** Unix milliseconds. */
  timestamp: number;
  /** When it is worth nothing any more, in Unix milliseconds, if its publisher set `ttlMs`. */
  expiresAt?: number;
  /** The durable consumer that waits for an `ack`. */
  durable?: string;
  /** Number of this delivery by that consumer; absent for the first. */
  tries?: number;
}

/** A message of another client to all clients, or to this one or its user. */
export interface Said extends Content {
  from: string;
  /** Unix milliseconds. */
  timestamp: number;
}

/** Data that another client sent with `signal`. */
export interface Signal extends Said {
  data: any;
}

/** The answer of another client to a request. */
export interface Answer extends Content {
  /** Unix milliseconds. */
  timestamp: number;
}

/** A request of another client. */
export interface Asked extends Content {
  /** The topic that it was sent to; absent if it was addressed to this client or its user. */
  topic?: string;
  /** Unix milliseconds. */
  timestamp: number;
  /** How long the answer may take, from the arrival on. */
  timeoutMs: number;
  /** Aborted when the other client has given the request up or left, its time is over, or the connection was lost. */
  readonly signal: AbortSignalLike & { readonly reason?: any };
  /** Answers at once, and with options; what the handler returns after that is ignored. */
  respond(value: unknown, options?: ValueOptions): void;
}

/**
 * Answers requests. What it returns is the answer, as with `publish`; `undefined` is sent as `null`. If it throws, the
 * request fails with the error's message, and with its `code` if that is 400 to 599. Several calls may run at once.
 */
export type RequestHandler = (asked: Asked) => unknown;

/** A JSON value as text, which is sent as it is: for numbers that JavaScript cannot hold. */
export class JsonText {
  /** Throws a `QwsError` if the text is not JSON. */
  constructor(text: string);
  readonly text: string;
  /** `JSON.stringify` leaves it out of an object. */
  toJSON(): undefined;
}

/** Options of everything that sends a value. */
export interface ValueOptions {
  /** What the message is about, for receivers and their filters: an object of at most 1 KiB (by default). */
  meta?: { [field: string]: unknown };
  /** Bytes beside a text or a JSON value. */
  bytes?: Uint8Array;
}

export interface PublishOptions extends ValueOptions {
  /** Repeated within two minutes (by default), it adds nothing. Default: a random one. */
  key?: string;
  /** Time after which the message is worth nothing: it is not delivered any more, and in no history. */
  ttlMs?: number;
}

export interface RequestOptions extends ValueOptions {
  /** How long the answer may take, reconnects included, 100 to 300000. Default 10000. */
  timeoutMs?: number;
  /** Gives the request up: the call rejects with the signal's reason, and the other client is told. */
  signal?: AbortSignalLike & { readonly reason?: any };
}

/** One client by its id, or all clients of a user. */
export type Recipient = { to: string } | { user: string };

/** Clients that answer requests to a topic, a client, or a user. */
export type Target = { topic: string } | Recipient;

export interface ClientInfo {
  id: string;
  name: string | null;
  user?: string;
  /** What the user's token says about the user for others. */
  info?: any;
}

/** A member of a topic: a client that has subscribed to it by its name, or a user with all such clients. */
export interface Member extends ClientInfo {
  /** What it has set with `setState`. */
  state?: any;
  /** Where members are users: number of the user's clients on the topic. */
  clients?: number;
  /** Its connection is lost, and it may come back. */
  away?: boolean;
}

export interface ConnectedClient extends ClientInfo {
  connected_at: number;
  transport: "quic" | "webtransport" | "websocket";
}

export interface ClientPage {
  clients: ConnectedClient[];
  total: number;
  /** The `after` of the next page; absent on the last one. */
  next?: string;
}

export interface Published extends Position {
  topic: string;
  /** The key was used before: nothing was added, and the position is that of the first publish. */
  duplicate: boolean;
  /** What it survives: "os", the end of the server's process; "fsync", a power failure. Absent: kept in memory. */
  stored?: "os" | "fsync";
}

export interface HistoryOptions {
  /** Only messages after this position; with `reverse`, only messages before it. */
  since?: Position;
  /** Only messages from this time on, in Unix milliseconds; with `reverse`, only messages before it. */
  sinceTime?: number;
  /** This many of the newest messages, oldest first, as with `recent` of `subscribe`. Not with the others. */
  recent?: number;
  /** Most messages on the page, 1 to 1000. Default 100. */
  limit?: number;
  /** Newest first. */
  reverse?: boolean;
}

/** A page of a topic's history, empty if there is none. `{ epoch, offset }` is the position of the newest message. */
export interface HistoryPage {
  /** Epoch of the topic's log; empty if an older server knows no such topic. */
  epoch: string;
  /** Newest offset in the log; from an older server, the newest that is known from this page. */
  offset: number;
  messages: Message[];
  /** Whether there is another page; with `recent`, whether there are older messages. */
  more: boolean;
  /** Whether the log still has all messages after `since`; `null` without `since`, and from older servers. */
  recovered: boolean | null;
}

export interface PresenceOptions {
  /** Most members on the page, 1 to 1000. Default 1000. */
  limit?: number;
  /** The page begins after the member with this id. */
  after?: string;
  /** Only the numbers. */
  counts?: boolean;
}

/** A page of a topic's members. */
export interface Presence {
  clients: Member[];
  /** Number of members, on all pages. */
  total: number;
  /** Number of different users among them; absent from older servers. */
  users?: number;
  /** The `after` of the next page; absent on the last one. */
  next?: string;
}

/** The number of a topic's members. */
export interface Occupancy {
  topic: string;
  clients: number;
  users: number;
}

/** Messages that were dropped; `history` may still have them. */
export interface Gap {
  /** If this is the pattern itself, messages of several of its topics were dropped, and `first` and `last` are 0. */
  topic: string;
  first: number;
  last: number;
  reason?: string;
}

export interface Subscribed {
  /** `null` for a pattern. */
  epoch: string | null;
  /** Newest offset in the log at the time of subscribing; `null` for a pattern. */
  offset: number | null;
  /** Whether all messages after `since` follow; `null` without `since`. */
  recovered: boolean | null;
  /** With `durable`: every message up to this offset is acknowledged, or not for this consumer. */
  acked?: number;
  /** With `durable`: number of messages that are not acknowledged. */
  pending?: number;
}

export interface Lost extends Subscribed {
  reason?: string;
}

export type ClientState = "connecting" | "open" | "reconnecting" | "closed";

export type ErrorKind =
  /** The server refused this request; `code` is the protocol's error code. */
  | "request"
  /** The connection or client has ended; `code` is the close code. The request may or may not have been carried out. */
  | "closed"
  /** No reply in time. */
  | "timeout"
  /** No connection could be opened. */
  | "transport"
  /** The server violated the protocol. */
  | "protocol"
  /** The call has invalid arguments. */
  | "usage";

export interface ErrorDetails {
  code?: number;
  retryAfterMs?: number;
  cause?: unknown;
  answer?: Answer;
}

export class QwsError extends Error {
  constructor(kind: ErrorKind, message: string, details?: ErrorDetails);
  readonly name: "QwsError";
  readonly kind: ErrorKind;
  /** The protocol's error code or close code, if there is one. */
  readonly code?: number;
  /** With code 429: milliseconds until the request may be repeated. */
  readonly retryAfterMs?: number;
  /** Of a request that another client has let fail: its answer, which may have a value as well. */
  readonly answer?: Answer;
}

export interface ClientEvents {
  state: QwsEvent<ClientState>;
  /** Connected, or moved to QUIC. Unawaited requests before and after a move may overtake each other. */
  open: QwsEvent<{ carrier: Carrier; resumed: boolean }>;
  close: QwsEvent<{ code: number; reason: string; willReconnect: boolean }>;
  broadcast: QwsEvent<Said>;
  direct: QwsEvent<Said>;
  signal: QwsEvent<Signal>;
  /**
   * The server has made a subscription for this client, because its token or an operator says so. Add listeners at
   * once, or iterate. `unsubscribe` declines it, on later connections as well.
   */
  subscription: QwsEvent<Subscription>;
  expiring: QwsEvent<{ expires_at: number }>;
  /** Another token is in use, with these permissions. */
  permissions: QwsEvent<Permissions | null>;
  rtt: QwsEvent<number>;
  /** A failure in the background, for logs: the client handles it. */
  error: QwsEvent<QwsError>;
}

export interface SubscriptionEvents {
  message: QwsEvent<Message>;
  gap: QwsEvent<Gap>;
  join: QwsEvent<{ topic: string; client: Member }>;
  leave: QwsEvent<{ topic: string; client: Member }>;
  /** Another member's state has changed; of fast changes only the newest comes. */
  state: QwsEvent<{ topic: string; client: Member }>;
  /** A member whose connection was lost is back, with another id; there is no "leave" and "join" for that. */
  return: QwsEvent<{ topic: string; client: Member; was: string }>;
  /** With `presence: "counts"`, or where the server names no members: the number of members. */
  occupancy: QwsEvent<Occupancy>;
  /** With `members: true`: they were loaded, or have changed. `error`: they cannot be had. */
  members: QwsEvent<{ members: readonly Member[]; error?: QwsError }>;
  /** Subscribed again after a reconnect or a pause, and nothing was lost. */
  resumed: QwsEvent<Subscribed>;
  /** Subscribed (again), but some messages in between are gone: fetch the state again. */
  lost: QwsEvent<Lost>;
  /**
   * The subscription has ended; `null` if the application asked for it. Code 409: another client has taken over its
   * durable consumer; do not subscribe again by yourself.
   */
  end: QwsEvent<QwsError | null>;
}

declare const EventTargetBase: new () => PlatformEventTarget;

/** Exists only as a type: at run time it is an `EventTarget`. */
declare class TypedEventTarget<Events> extends EventTargetBase {
  addEventListener<K extends keyof Events & string>(
    type: K,
    listener: Listener<Events[K]> | null,
    options?: boolean | ListenerOptions,
  ): void;
  addEventListener(type: string, listener: Listener<any> | null, options?: boolean | ListenerOptions): void;
  removeEventListener<K extends keyof Events & string>(
    type: K,
    listener: Listener<Events[K]> | null,
    options?: boolean | { capture?: boolean },
  ): void;
  removeEventListener(type: string, listener: Listener<any> | null, options?: boolean | { capture?: boolean }): void;
}

/**
 * A subscription to a topic or pattern. It outlives connections: after a reconnect it continues after the last message
 * that it received.
 *
 * Read it by iteration, by "message" listeners, or both. Listeners get each message at once. Without listeners, at most
 * `highWaterMark` messages wait for iteration; see the README, "Slow readers". Several iterations share one queue: each
 * message goes to one of them. Leaving an iteration does not unsubscribe.
 */
export class Subscription extends TypedEventTarget<SubscriptionEvents> implements AsyncIterable<Message> {
  private constructor();
  /** The topic or pattern, as given to `subscribe`. */
  readonly topic: string;
  /** Resolves when the server has accepted it; rejects if it never does. */
  readonly ready: Promise<Subscribed>;
  /** "paused": the reader did not keep up, and the server was asked to wait. */
  readonly state: "pending" | "active" | "paused" | "ended";
  /** Whether the client may publish to this topic; true for a pattern. */
  readonly mayPublish: boolean;
  /**
   * The position of the last message handed out; `null` before it is known (with `recent`, before the first message),
   * for a pattern, and with `durable` or `share`, where the server knows what is next.
   */
  readonly position: Position | null;
  /** The durable consumer; `null` without one. */
  readonly durable: string | null;
  /** With `members: true`: the topic's members, this client included; `null` before they are known. */
  readonly members: readonly Member[] | null;
  /**
   * Sets this client's state on the topic, for the other members: any JSON value of at most 1 KiB, `null` for none. Of
   * fast changes only the newest is sent. Resolves once the server has it, or a newer one.
   */
  setState(state: unknown): Promise<void>;
  /** Ends it; iteration ends after the messages that wait already. */
  unsubscribe(): Promise<void>;
  /** Ends it and its durable consumer for good, for all its clients. Rejects if the server could not be asked. */
  forget(): Promise<void>;
  /**
   * Acknowledges messages of the durable consumer: they never come again. Resolves once the server has stored that,
   * with the number of messages for which it took effect; the others are not in flight to this client any more.
   * Rejects with kind "closed" if the connection was lost: the messages may come again, or not.
   */
  ack(which: Acked): Promise<number>;
  /** Has messages delivered again, to this client or another one, after `delayMs` (default: at once). */
  retry(which: Acked, delayMs?: number): Promise<number>;
  /** Gives messages up: they never come again, and go to the dead-letter topic, if the server has one. */
  reject(which: Acked): Promise<number>;
  [Symbol.asyncIterator](): MessageIterator;
}

/** An iteration over a subscription. `return` and `throw` resolve pending calls of `next` with `done`. */
export interface MessageIterator extends AsyncIterator<Message, undefined> {
  next(): Promise<IteratorResult<Message, undefined>>;
  return(): Promise<IteratorReturnResult<undefined>>;
  /** Leaves the iteration, and rejects with the error. */
  throw(error?: unknown): Promise<IteratorReturnResult<undefined>>;
  [Symbol.asyncIterator](): MessageIterator;
}

/** A client that reconnects by itself. */
export class Client extends TypedEventTarget<ClientEvents> {
  private constructor();
  /** Resolves with the first accepted handshake; rejects if the client closes before. */
  readonly ready: Promise<void>;
  readonly state: ClientState;
  /** The client's id, a new one for each connection; `null` while there is none. */
  readonly id: string | null;
  /** The user that the client has authenticated as. */
  readonly user: string | null;
  /** The name shown to other clients. */
  readonly name: string | null;
  readonly serverName: string | null;
  readonly limits: Limits | null;
  /** Messages that the client may send to others; `null` if the server restricts nothing, or does not report it. */
  readonly permissions: Permissions | null;
  /** The user's own topic, which keeps what is sent while no client of the user is connected. */
  readonly inbox: string | null;
  /** What the user's token says about the user for others; `null` if there is nothing. */
  readonly info: unknown;
  readonly carrier: Carrier | null;
  /** The shortest of the last three round trips, in milliseconds; a connection's first counts only until the second. */
  readonly rttMs: number | null;
  /** Number of reconnects. */
  readonly reconnects: number;
  /** Number of streams opened or accepted on this connection; 1 on WebSocket. */
  readonly streams: number;

  /** Measures the round trip, in milliseconds. */
  ping(): Promise<number>;
  echo(content: string): Promise<string>;
  echo(content: Uint8Array): Promise<Uint8Array>;
  /**
   * Sends to all clients; resolves with the number of receivers. As with every value that is sent, a string is text, a
   * `Uint8Array` bytes, and everything else JSON.
   */
  broadcast(value: unknown, options?: ValueOptions): Promise<number>;
  /** Sends to a client by its id, or to a user (`{ user }`); resolves with the number of receivers. */
  direct(to: string | Recipient, value: unknown, options?: ValueOptions): Promise<number>;
  /** `data` is any JSON value. Resolves with the number of receivers. */
  signal(to: string | Recipient, data: unknown): Promise<number>;
  /**
   * Asks a client that answers requests to a topic, or (`{ to }`, `{ user }`) a client or one of a user's. Rejects with
   * kind "request" and code 404 if no client answers there, 502 if the other client left, 503 if those that answer are
   * busy, or the code of the other client; with kind "timeout" and code 504 if no answer came in time; with kind
   * "closed" if the connection was lost: the request may or may not have been carried out.
   */
  request(target: string | Target, value: unknown, options?: RequestOptions): Promise<Answer>;
  /**
   * Answers requests to a topic, with other clients that do so in turn, until `unsubscribe`. It is a subscription that
   * drops messages published to the topic; with `share: true` those go to others of the queue group as well.
   */
  serve(topic: string, handler: RequestHandler, options?: SubscribeOptions): Subscription;
  listClients(options?: { limit?: number; after?: string }): Promise<ClientPage>;
  /** All connected clients, page by page. */
  clients(): AsyncGenerator<ConnectedClient, void, undefined>;
  /**
   * Subscribes to a topic, or to all topics that a pattern matches. If several subscriptions of this client match a
   * message, it comes once: to those that name the topic exactly, otherwise to the pattern that was subscribed to
   * first.
   *
   * Several subscriptions to one topic share what the server sends; see the README, "Several subscriptions to one
   * topic". Errors reject `ready`; only an unknown option throws, a TypeError.
   */
  subscribe(topic: string, options?: SubscribeOptions): Subscription;
  /**
   * Adds a message to a topic exactly once, even if the connection is lost meanwhile, as long as the server remembers
   * the key: by default the newest 1,000 keys of a topic, each for two minutes. Repeating a key after that adds the
   * message again.
   */
  publish(topic: string, value: unknown, options?: PublishOptions): Promise<Published>;
  /** Acknowledges messages of a durable consumer; `ack`, `retry` and `reject` of a subscription do the same. */
  ack(topic: string, durable: string, which: Acked, options?: AckOptions): Promise<number>;
  history(topic: string, options?: HistoryOptions): Promise<HistoryPage>;
  /** A page of the topic's members. */
  presence(topic: string, options?: PresenceOptions): Promise<Presence>;
  /** All members of a topic, page by page. */
  members(topic: string): AsyncGenerator<Member, void, undefined>;
  /** Replaces the token by another one of the same user, also when reconnecting. Resolves with its expiry, if any. */
  refresh(token: string): Promise<{ expires_at?: number }>;
  /** Closes the client for good. Resolves once it has ended and nothing runs any longer. */
  close(code?: number, reason?: string): Promise<void>;
}

/**
 * Connects to a server; returns at once, and the client connects in the background.
 * @param url `https://host:port`; `http:` for loopback hosts. Default in a page: its own origin.
 */
export function connect(url?: string | UrlLike, options?: ConnectOptions): Client;

export {};
