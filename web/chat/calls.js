// Calls between two people: a room of the page for video that only they know.

/**
 * The text that invites to a new call, and the address at which its sender joins.
 * @param {string | null} name of the sender
 * @param {string} [base] the address of the page
 */
export function invite(name, base = location.href) {
  const room = `call-${crypto.randomUUID().replaceAll("-", "").slice(0, 20)}`;
  const href = (more) => {
    const link = new URL("/webrtc", base);
    link.hash = new URLSearchParams({ room, ...more }).toString();
    return link.href;
  };
  return { text: `Join my video call: ${href({})}`, href: href(name === null ? {} : { name }) };
}
