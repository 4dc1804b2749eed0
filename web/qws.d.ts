/**
 * A client of a quic-websocket server, for browsers (WebTransport and WebSocket) and Node (WebSocket).
 * What comes from the server has the field names of its protocol (docs/PROTOCOL.md).
 */

// These declarations need no library but ES2022. If the DOM library, or that of Node, is there, events and event targets are its.

/** What the platform calls an event with a `detail`; without its types, the part of it that a listener needs. */
type PlatformEvent = typeof globalThis extends { CustomEvent: { prototype: infer Event } }
  ? Omit<Event, "detail">
  : { readonly type: string };

/** An event of a client or a subscription: a `CustomEvent`. */
export type QwsEvent<Detail> = PlatformEvent & { readonly detail: Detail };

/** The platform's `EventTarget`; without its types, the part of it that is needed. */
type PlatformEventTarget = typeof globalThis extends { EventTarget: { prototype: infer Target } }
  ? Target
  : { dispatchEvent(event: any): boolean };

/** A `URL`, or what has an address as one. */
export interface UrlLike {
  readonly href: string;
}

/** Ends a listener: an `AbortSignal`. */
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

/** What is called with an event: a function, or an object with `handleEvent`. */
export type Listener<Event> = ((event: Event) => void) | { handleEvent(event: Event): void };

/** How bodies travel. */
export type Carrier = "webtransport" | "websocket";

/** A place in a topic's log. Compare epochs for equality, nothing else; offsets grow, not always by one. */
export interface Position {
  epoch: string;
  offset: number;
}

export interface ConnectOptions {
  /** The name that others see: 1 to 64 characters. */
  name?: string;
  /**
   * The access token; space around it is removed. A function is called at each connect and before the token ends. If it
   * throws, gives no token, takes longer than 10 seconds, or gives one that the server rejects (4401), the client tries again
   * with backoff. `undefined` connects without a token.
   */
  token?: string | (() => string | undefined | Promise<string | undefined>);
  /** What may be used. Default: both, if the platform has them; on WebKit WebSocket alone, see `webTransportOnWebKit`. */
  carriers?: Carrier[];
  /**
   * Use WebTransport on WebKit too (Safari, and every browser on iOS). Default false: its sessions stop for good after about
   * 16 MiB or 7,600 streams (WebKit bug 319818).
   */
  webTransportOnWebKit?: boolean;
  /** In place of the derived `https://host:port/wt`. */
  webTransportUrl?: string | UrlLike;
  /** In place of the derived `wss://host:port/ws`. */
  webSocketUrl?: string | UrlLike;
  /** The hash of the certificate to trust for WebTransport, in base64. `false`: do not ask the server for it. */
  certificateHash?: { algorithm: "sha-256"; value: string } | false;
  /** A WebSocket class where there is no global one: Node before 22, with `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => any;
  /** How long QUIC is tried alone before WebSocket is tried beside it. Default 200. */
  raceDelayMs?: number;
  /** Once both are tried: after how long since the beginning WebSocket is taken although QUIC may still come. Default 800. */
  settleMs?: number;
  /** On WebSocket: after how long QUIC is tried again, in the background; up to 16 times as long after it failed again. 0: never. Default 60000. */
  retryQuicMs?: number;
  /** The most that a try to reconnect is put off. Default 20000. */
  maxBackoffMs?: number;
  /** How long a request waits for its reply, reconnects included; `Infinity`: as long as the client lives. Default 15000. */
  requestTimeoutMs?: number;
  /** How many messages of one subscription wait for their reader. Default 1024. */
  highWaterMark?: number;
}

export interface SubscribeOptions {
  /** Replay what came after this position; not with a pattern. */
  since?: Position;
  /** Replay so many of the newest messages first; beside `since`, only where that cannot be recovered. */
  recent?: number;
  /** Reliable and in order, or the newest wins. Default "stream". */
  delivery?: "stream" | "datagram";
  /** Where the messages come. Default "own". */
  lane?: "own" | "control";
  /** Also tell "join" and "leave". */
  presence?: boolean;
  /** How many messages wait for their reader. Default: the client's. */
  highWaterMark?: number;
}

/** What a client may send to other clients. */
export interface Permissions {
  broadcast: boolean;
  direct: boolean;
  signal: boolean;
  list_clients: boolean;
}

/** What the server told about its bounds. */
export interface Limits {
  max_message_bytes: number;
  ping_interval_ms: number;
  ping_timeout_ms: number;
  max_request_lanes: number;
  max_unfinished_bytes?: number;
  [other: string]: number | undefined;
}

/** One message of a topic. `content` or `data` is there, or both. */
export interface Message {
  topic: string;
  offset: number;
  /** The client that published it; absent where no client did. */
  from?: string;
  content?: string;
  data?: Uint8Array;
  /** Unix milliseconds. */
  timestamp: number;
}

/** What another client said to all, or to this one. */
export interface Said {
  from: string;
  content?: string;
  data?: Uint8Array;
  timestamp: number;
}

/** What another client handed over with `signal`. */
export interface Signal {
  from: string;
  data: any;
  timestamp: number;
}

export interface ClientInfo {
  id: string;
  name: string | null;
  user?: string;
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
  /** The key was seen before: nothing was added, and the position is that of the first. */
  duplicate: boolean;
}

export interface HistoryOptions {
  /** Only what came after this position; with `reverse`, only what came before. */
  since?: Position;
  /** The newest so many messages, oldest first: as `recent` of `subscribe`. Not with the others. */
  recent?: number;
  /** Most messages on the page, 1 to 1000. Default 100. */
  limit?: number;
  /** The newest first. */
  reverse?: boolean;
}

/** A page of a topic's past messages, empty if there are none. `{ epoch, offset }` is the position of the newest in the log. */
export interface HistoryPage {
  /** Of the topic's log; empty if an older server knows no such topic. */
  epoch: string;
  /** The newest in the log; from an older server, the newest that is known from this page. */
  offset: number;
  messages: Message[];
  /** Whether there is another page; with `recent`, whether there are older messages. */
  more: boolean;
  /** Whether the log still has all that came after `since`; `null` if that was not asked, or the server does not tell. */
  recovered: boolean | null;
}

export interface Presence {
  clients: ClientInfo[];
  total: number;
}

/** Messages that were dropped; `history` has them while it lasts. */
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
  /** The newest in the log when it was subscribed to; `null` for a pattern. */
  offset: number | null;
  /** Whether all after `since` follows; `null` where no position was asked for. */
  recovered: boolean | null;
}

export interface Lost extends Subscribed {
  reason?: string;
}

export type ClientState = "connecting" | "open" | "reconnecting" | "closed";

export type ErrorKind =
  /** The server refused this request; `code` is the protocol's error code. */
  | "request"
  /** The connection or client has ended; `code` is the close code. What was asked may have been carried out, or not. */
  | "closed"
  /** No reply in time. */
  | "timeout"
  /** No connection could be had. */
  | "transport"
  /** The other side broke the protocol. */
  | "protocol"
  /** This call cannot be right. */
  | "usage";

export class QwsError extends Error {
  constructor(kind: ErrorKind, message: string, details?: { code?: number; retryAfterMs?: number; cause?: unknown });
  readonly name: "QwsError";
  readonly kind: ErrorKind;
  /** The protocol's error code or close code, where there is one. */
  readonly code?: number;
  /** With code 429: after how many milliseconds to ask again. */
  readonly retryAfterMs?: number;
}

export interface ClientEvents {
  state: QwsEvent<ClientState>;
  open: QwsEvent<{ carrier: Carrier; resumed: boolean }>;
  close: QwsEvent<{ code: number; reason: string; willReconnect: boolean }>;
  broadcast: QwsEvent<Said>;
  direct: QwsEvent<Said>;
  signal: QwsEvent<Signal>;
  expiring: QwsEvent<{ expires_at: number }>;
  /** Another token holds, with these permissions. */
  permissions: QwsEvent<Permissions | null>;
  rtt: QwsEvent<number>;
  /** What went wrong in the background; nothing has to be done. */
  error: QwsEvent<QwsError>;
}

export interface SubscriptionEvents {
  message: QwsEvent<Message>;
  gap: QwsEvent<Gap>;
  join: QwsEvent<{ topic: string; client: ClientInfo }>;
  leave: QwsEvent<{ topic: string; client: ClientInfo }>;
  /** Subscribed again after a reconnect or a pause, and nothing was lost. */
  resumed: QwsEvent<Subscribed>;
  /** Subscribed (again), but some of what came between is gone: fetch the state anew. */
  lost: QwsEvent<Lost>;
  /** Over: `null` where that was asked for. */
  end: QwsEvent<QwsError | null>;
}

declare const EventTargetBase: new () => PlatformEventTarget;

/** Only its types are there: what it stands for is an `EventTarget`. */
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
 * A subscription to a topic or pattern. It outlives connections: after a reconnect it goes on behind the last message
 * that it saw.
 *
 * Read it by iteration, by "message" listeners, or both. Listeners get each message at once. Messages that nobody listens
 * to wait for iteration, `highWaterMark` of them at most; what happens beyond that stands in the README, "Slow readers".
 * Several iterations share one queue: each message goes to one of them. Leaving an iteration does not unsubscribe.
 */
export class Subscription extends TypedEventTarget<SubscriptionEvents> implements AsyncIterable<Message> {
  private constructor();
  /** The text that was subscribed to. */
  readonly topic: string;
  /** Resolves when the server has taken it; rejects where it never does. */
  readonly ready: Promise<Subscribed>;
  /** "paused": the reader did not keep up, and the server was asked to wait. */
  readonly state: "pending" | "active" | "paused" | "ended";
  /** Whether the client may publish to this topic, as the server said with `subscribed`; true for a pattern. */
  readonly mayPublish: boolean;
  /** Behind the last message that was handed out; `null` before it is known, and for a pattern. */
  readonly position: Position | null;
  /** Ends it; iteration ends behind what waits already. */
  unsubscribe(): Promise<void>;
  [Symbol.asyncIterator](): MessageIterator;
}

/** One who reads a subscription. Leaving by `return` or `throw` ends what was asked for and has not come: with `done`. */
export interface MessageIterator extends AsyncIterator<Message, undefined> {
  next(): Promise<IteratorResult<Message, undefined>>;
  return(): Promise<IteratorReturnResult<undefined>>;
  /** Leaves, and rejects with the error. */
  throw(error?: unknown): Promise<IteratorReturnResult<undefined>>;
  [Symbol.asyncIterator](): MessageIterator;
}

/** A connection that comes back by itself. */
export class Client extends TypedEventTarget<ClientEvents> {
  private constructor();
  /** Resolves with the first accepted handshake; rejects where the client has closed before. */
  readonly ready: Promise<void>;
  readonly state: ClientState;
  /** Another one with each connection; `null` while there is none. */
  readonly id: string | null;
  /** Who the client has proved to be. */
  readonly user: string | null;
  /** The name that others see. */
  readonly name: string | null;
  readonly serverName: string | null;
  readonly limits: Limits | null;
  /** What the client may send to others; `null` if the server restricts nobody, or does not say. */
  readonly permissions: Permissions | null;
  readonly carrier: Carrier | null;
  /** The shortest of the last three round trips, in milliseconds; the first of a connection counts only until there is another. */
  readonly rttMs: number | null;
  /** How often it came back after a lost connection. */
  readonly reconnects: number;
  /** How many streams this connection has opened or taken; 1 on WebSocket. */
  readonly streams: number;

  /** The round trip in milliseconds. */
  ping(): Promise<number>;
  echo(content: string): Promise<string>;
  echo(content: Uint8Array): Promise<Uint8Array>;
  /** Resolves with the number of clients to whom it went. */
  broadcast(content: string | Uint8Array): Promise<number>;
  direct(to: string, content: string | Uint8Array): Promise<void>;
  /** `data` is any JSON value. */
  signal(to: string, data: unknown): Promise<void>;
  listClients(options?: { limit?: number; after?: string }): Promise<ClientPage>;
  /** All connected clients, page by page. */
  clients(): AsyncGenerator<ConnectedClient, void, undefined>;
  /**
   * Subscribes to a topic, or to all that a pattern matches. If several subscriptions of this client match a message, it comes
   * once: to those that name the topic exactly, else to the pattern that was subscribed to first.
   *
   * Several subscriptions to one topic share what the server sends; see the README, "One topic, several subscriptions". What is
   * wrong rejects `ready`; only an unknown option throws, a TypeError.
   */
  subscribe(topic: string, options?: SubscribeOptions): Subscription;
  /**
   * Adds a message to a topic exactly once, however often the connection is lost meanwhile, within what the server remembers:
   * the newest 1,000 keys of a topic, each for two minutes, where its settings are the defaults. Whoever repeats a call with
   * its key after that adds the message again.
   */
  publish(topic: string, content: string | Uint8Array, options?: { key?: string }): Promise<Published>;
  history(topic: string, options?: HistoryOptions): Promise<HistoryPage>;
  presence(topic: string): Promise<Presence>;
  /** Shows another token of the same user; it is shown at the next connect as well. Resolves with its end, if it has one. */
  refresh(token: string): Promise<{ expires_at?: number }>;
  /** Ends for good. Resolves once it is over; nothing runs any more then. */
  close(code?: number, reason?: string): Promise<void>;
}

/**
 * Connects to a server; returns at once, and the client connects in the background.
 * @param url `https://host:port`; `http:` for loopback hosts. Default in a page: its own origin.
 */
export function connect(url?: string | UrlLike, options?: ConnectOptions): Client;

export {};
