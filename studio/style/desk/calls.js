// Calls to the desk's own address. An error becomes a thrown Problem with the words the server found for it.

export class Problem extends Error {
  constructor({ kind = '', found, wanted = '', do: next = '' }) {
    super(found);
    Object.assign(this, { kind, found, wanted, next });
  }
}

const offline = () => new Problem({
  kind: 'Offline',
  found: 'The studio does not answer.',
  do: 'What you entered is kept in this tab. It is sent as soon as the studio is back.',
});

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(`/desk/${path}`, { credentials: 'same-origin', ...options });
  } catch {
    throw offline();
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  if (said?.found) throw new Problem(said);
  throw new Problem({ kind: 'Broken', found: 'Something went wrong on our side.', do: 'What you entered is still here. Try once more.' });
}

const asJson = (value) => ({ method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(value) });

export const get = async (path) => (await call(path)).json();
export const post = async (path, value = {}) => (await call(path, asJson(value))).json();

// One object a line, as each arrives.
export async function* lines(path, value) {
  const reader = (await call(path, asJson(value))).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value: piece, done } = await reader.read();
    rest += piece ?? '';
    const whole = rest.split('\n');
    rest = whole.pop();
    for (const line of whole) if (line.trim()) yield JSON.parse(line);
    if (done) return;
  }
}
