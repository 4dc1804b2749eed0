// The parts of a text that become links, and those that never do.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";

import { partsOf } from "../ui/links.js";

const links = (text, how) => partsOf(text, how).filter((part) => typeof part !== "string");
const hrefs = (text) => links(text).map(({ href }) => href);
const whole = (text, how) =>
  partsOf(text, how)
    .map((part) => part.shown ?? part)
    .join("");

test("web addresses in a text are links, and the text around them stays", () => {
  assert.deepEqual(partsOf("see https://example.com/a?b=1#c, please"), [
    "see ",
    { href: "https://example.com/a?b=1#c", shown: "https://example.com/a?b=1#c" },
    ", please",
  ]);
  assert.deepEqual(hrefs("http://a.example and HTTPS://B.example/x"), ["http://a.example/", "https://b.example/x"]);
  assert.deepEqual(hrefs("http://127.0.0.1:8080/#room=lobby"), ["http://127.0.0.1:8080/#room=lobby"]);
  assert.deepEqual(hrefs("no address, just https:// and http://. and example.com"), []);
});

test("punctuation after an address is not part of it, and brackets are if they belong to it", () => {
  const cases = {
    "(https://example.com/a)": "https://example.com/a",
    "https://en.example/Foo_(bar)": "https://en.example/Foo_(bar)",
    "(see https://en.example/Foo_(bar)).": "https://en.example/Foo_(bar)",
    "https://example.com/a...": "https://example.com/a",
    "“https://example.com/a”": "https://example.com/a",
    "https://example.com/a?!": "https://example.com/a",
    "<https://example.com/a>": "https://example.com/a",
    "https://example.com/#/room/a;b": "https://example.com/#/room/a;b",
  };
  for (const [text, href] of Object.entries(cases)) {
    assert.deepEqual(hrefs(text), [href], text);
    assert.equal(whole(text), text);
  }
});

test("no other scheme becomes a link", () => {
  for (const text of [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)//https",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "file:///etc/passwd",
    "blob:x",
    "ftp://example.com/",
    "//example.com/",
    "xhttps://example.com/",
    "view-source.https:example.com",
    "https:example.com",
    "https:/example.com",
  ]) {
    assert.deepEqual(links(text), [], text);
    assert.equal(whole(text), text);
  }
});

test("an address that only looks like another host's is no link", () => {
  for (const text of [
    "https://bank.example@evil.example/",
    "https://bank.example:443@evil.example",
    "https://user:secret@evil.example/",
    "https://@evil.example/",
    "https://:@evil.example/",
    "https://%62ank.example%40evil.example/",
  ]) {
    assert.deepEqual(links(text), [], text);
  }
  assert.deepEqual(
    hrefs("https://bank.example\\@evil.example/"),
    ["https://bank.example/"],
    "it ends before the backslash",
  );
  assert.deepEqual(hrefs("https://example.com/@ada"), ["https://example.com/@ada"]);
});

test("letters that look like others are shown in the host as the browser encodes them", () => {
  assert.deepEqual(links("https://b\u0430nk.example/x"), [
    { href: "https://xn--bnk-6cd.example/x", shown: "https://xn--bnk-6cd.example/x" },
  ]);
  assert.equal(links("https://example.com/grüße")[0].shown, "https://example.com/grüße");
});

test("invisible characters and those that reverse text end an address", () => {
  for (const hidden of [
    "\u202e",
    "\u2066",
    "\u200b",
    "\u200f",
    "\ufeff",
    "\u00ad",
    "\u{e0041}",
    "\u0000",
    "\t",
    "\u2028",
    "\u3164",
  ]) {
    const text = `https://example.com/${hidden}gpj.exe`;
    assert.deepEqual(hrefs(text), ["https://example.com/"], JSON.stringify(text));
    assert.equal(whole(text), text);
  }
});

test("markup in an address is text, and ends it", () => {
  assert.deepEqual(hrefs('https://example.com/"onclick="alert(1)'), ["https://example.com/"]);
  assert.deepEqual(hrefs("https://example.com/'><script>alert(1)</script>"), ["https://example.com/"]);
});

test("an address that is cut off or too long is no link", () => {
  assert.deepEqual(
    links("https://a.example/ https://b.exam", { isCut: true }).map(({ href }) => href),
    ["https://a.example/"],
  );
  assert.deepEqual(links(`https://example.com/${"a".repeat(3000)}`), []);
});

test("a text full of possible addresses has a bounded number of links", () => {
  assert.equal(links("https://a.example/ ".repeat(50_000)).length, 200);
});

// In a process of its own, which can be ended. Quadratic time would be hours here, on any machine.
test("a text full of possible addresses takes time in proportion to its length", () => {
  const program = `import { partsOf } from ${JSON.stringify(new URL("../ui/links.js", import.meta.url).href)};
    for (const piece of ["https://a.example/ ", "https://", "https://a.example/)", ")", "(", "]", "."]) {
      partsOf(piece.repeat(200_000));
      partsOf("https://a.example/" + piece.repeat(200_000));
    }`;
  const { error, status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    timeout: 120_000,
    encoding: "utf8",
  });
  assert.equal(error, undefined);
  assert.equal(status, 0, stderr);
});
