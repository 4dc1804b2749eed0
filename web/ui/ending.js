// Explanations for the user of why the server closed a connection or refused a token. Pure.

/** Explains a "close" without a reconnect. @param {{ code: number, reason: string }} end */
export function endingOf({ code, reason }) {
  if (code === 4401) return "Your access has expired.";
  const why = reason ? `: ${reason}` : "";
  if (code === 4403) return sentence(`You were removed from this server${why}`);
  if (code === 4429) return "You were disconnected for sending too much too quickly.";
  return sentence(`The server closed the connection${why} (code ${code})`);
}

/** Explains why a token was refused. @param {string} reason the server's message */
export function refusedToken(reason) {
  if (/expired/i.test(reason)) return "This access token has expired.";
  if (/(another|different) user/i.test(reason)) return "This access token belongs to another user.";
  if (/used before|already (been )?used|only once/i.test(reason))
    return "This access token has already been used. Each one works only once.";
  return "That is not a valid access token.";
}

/** Explains why a name was refused, chosen or in a token. @param {string} reason the server's message */
export function refusedName(reason) {
  if (/^token:.*another user/i.test(reason)) return "The name in your access token belongs to another user.";
  if (/another user/i.test(reason)) return "This name belongs to another user. Choose a different one.";
  return sentence(`The server refused the connection: ${reason}`);
}

const sentence = (words) => (/[.!?]$/.test(words) ? words : `${words}.`);
