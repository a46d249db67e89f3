/** Three ways to send a first event, with the real address filled in. Pure. */

export interface Snippet {
  readonly name: string;
  readonly hint: string;
  readonly code: string;
}

const DEFAULT_URL = "http://127.0.0.1:8765";

function curl(url: string, stream: string, token: boolean): string {
  const lines = [
    `curl ${url}/v1/streams/${stream}/events`,
    ...(token ? [`-H "Authorization: Bearer $STEADCAST_TOKEN"`] : []),
    `-H "ce-specversion: 1.0" -H "ce-id: $(date +%s)"`,
    `-H "ce-source: /hello" -H "ce-type: hello"`,
    `-H "Content-Type: application/json"`,
    `-d '{"text": "first event"}'`,
  ];
  return lines.join(" \\\n  ");
}

function python(url: string, stream: string): string {
  return [
    "from steadcast import Publisher",
    "",
    `with Publisher("${url}") as publisher:`,
    `    publisher.publish("${stream}", type="hello", data={"text": "first event"})`,
  ].join("\n");
}

/** What makes a coding agent's hooks come to the server. */
export function installOf(url: string): string {
  const install = "steadcast hooks install";
  return url === DEFAULT_URL ? install : `export STEADCAST_URL=${url}\n${install}`;
}

/** What plays the recorded session to the server. */
export function demoOf(url: string): string {
  return url === DEFAULT_URL ? "steadcast demo" : `steadcast demo --url ${url}`;
}

/** `token` says that the server asks for one, which these read from STEADCAST_TOKEN. */
export function snippets(url: string, stream: string, token: boolean): readonly Snippet[] {
  const secret = token ? " Set STEADCAST_TOKEN first." : "";
  return [
    { name: "curl", hint: `From any shell.${secret}`, code: curl(url, stream, token) },
    { name: "Python", hint: `From your program.${secret}`, code: python(url, stream) },
    {
      name: "Claude Code",
      hint: `Every hook of your coding agent, in the stream "claude".${secret}`,
      code: installOf(url),
    },
  ];
}
