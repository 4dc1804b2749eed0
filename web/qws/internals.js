// Exports for this package's own tests. They may change at any time.

import { Backoff } from "./backoff.js";
import { Call } from "./calls.js";
import { inflate } from "./compression.js";
import { Entry } from "./entry.js";
import { Feed } from "./feed.js";
import { decodeBody, encodeBody, frameOf, FrameReader } from "./frames.js";
import { partOf } from "./json-text.js";
import { Members } from "./members.js";
import { Pace } from "./pace.js";
import { race } from "./race.js";
import { Binding, Routes } from "./routes.js";
import { matches } from "./topics.js";

export const internals = {
  Backoff,
  Binding,
  Call,
  Entry,
  Feed,
  FrameReader,
  Pace,
  Routes,
  decodeBody,
  encodeBody,
  frameOf,
  inflate,
  Members,
  matches,
  partOf,
  race,
};
