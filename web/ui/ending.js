// Why the server ended a connection or refused a token, in words for people. Pure.

/** What a "close" of a client says that does not come back. @param {{ code: number, reason: string }} end */
export function endingOf({ code, reason }) {
  if (code === 4401) return "Your access has expired.";
  const why = reason ? `: ${reason}` : "";
  if (code === 4403) return sentence(`You were removed from this server${why}`);
  if (code === 4429) return "You were disconnected because you sent too much in too short a time.";
  return sentence(`The server ended the connection${why} (code ${code})`);
}

/** What is wrong with a token. @param {string} reason as the server says it */
export function refusedToken(reason) {
  if (/expired/i.test(reason)) return "This access token has expired.";
  if (/another user/i.test(reason)) return "This access token belongs to another user.";
  if (/used before|already used/i.test(reason)) return "This access token was used before, and each is good only once.";
  return "That is not a valid access token.";
}

const sentence = (words) => (/[.!?]$/.test(words) ? words : `${words}.`);
