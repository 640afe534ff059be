// A request as text: JSON for the API, and a curl line for a shell.

import { writeJson } from "./json.js";

/** The body of `/run`. */
export function asJson(input) {
  return writeJson({ input }, 2);
}

/** A command that draws the same. The key is a variable of the shell, so that no history keeps it. */
export function asCurl(root, endpoint, input) {
  const body = writeJson({ input }).replaceAll("'", "'\\''");
  return `curl -X POST ${new URL(`v2/${endpoint}/runsync`, root).href} \\\n  -H "Authorization: Bearer $STABLEHAND_API_KEY" \\\n  -H 'Content-Type: application/json' \\\n  -d '${body}'`;
}
