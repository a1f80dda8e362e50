/**
 * The diffs that models write for `apply_patch` (V4A): no line numbers, but context to find.
 *
 * ```text
 * @@ class Shelf          begin the search behind this line
 *  def add(self):         context
 * -    pass               goes
 * +    self.n += 1        comes
 * *** End of File         the context is the end of the file
 * ```
 */

/** Lines that are to be found, and what comes in their place. */
interface Hunk { anchors: string[]; before: string[]; after: string[]; atEnd: boolean }

const lines = (text: string): string[] => text.replace(/\r\n/g, '\n').split('\n');

/** The text that a diff makes of another. */
export function applyDiff(input: string, diff: string, mode: 'default' | 'create' = 'default'): string {
  if (mode === 'create') return created(diff);
  const source = lines(input);
  const result: string[] = [];
  let at = 0;
  for (const hunk of hunks(diff)) {
    let from = at;
    for (const anchor of hunk.anchors) {
      const found = search(source, [anchor], from, false);
      if (found < 0) throw new Error(`Invalid Context:\n${anchor}`);
      from = found + 1;
    }
    const found = search(source, hunk.before, from, hunk.atEnd);
    if (found < 0) throw new Error(`Invalid Context ${from}:\n${hunk.before.join('\n')}`);
    result.push(...source.slice(at, found), ...hunk.after);
    at = found + hunk.before.length;
  }
  return [...result, ...source.slice(at)].join(input.includes('\r\n') ? '\r\n' : '\n');
}

function created(diff: string): string {
  const all = lines(diff);
  if (all.at(-1) === '') all.pop();
  return all.map((line) => {
    if (!line.startsWith('+')) throw new Error(`Invalid Add File Line: ${line}`);
    return line.slice(1);
  }).join('\n');
}

function hunks(diff: string): Hunk[] {
  const all: Hunk[] = [];
  const begin = (): Hunk => {
    const hunk: Hunk = { anchors: [], before: [], after: [], atEnd: false };
    all.push(hunk);
    return hunk;
  };
  let hunk = begin();
  const given = lines(diff);
  if (given.at(-1) === '') given.pop();
  for (const line of given) {
    if (line.startsWith('@@')) {
      if (hunk.before.length + hunk.after.length > 0) hunk = begin();
      const anchor = line.slice(2).replace(/^ /, '');
      if (anchor.trim()) hunk.anchors.push(anchor);
    } else if (line === '*** End of File') {
      hunk.atEnd = true;
    } else if (line.startsWith('+')) {
      hunk.after.push(line.slice(1));
    } else if (line.startsWith('-')) {
      hunk.before.push(line.slice(1));
    } else if (line.startsWith(' ') || line === '') {
      hunk.before.push(line.slice(1));
      hunk.after.push(line.slice(1));
    } else {
      throw new Error(`Invalid Line:\n${line}`);
    }
  }
  return all.filter(({ before, after }) => before.length + after.length > 0);
}

/** Where lines are: as they are, or else without what stands behind them, or else without their margins. */
function search(source: string[], wanted: string[], from: number, atEnd: boolean): number {
  // A last empty line is the end of the one before it.
  const end = source.at(-1) === '' ? source.length - 1 : source.length;
  if (wanted.length === 0) return atEnd || from === 0 ? end : from;
  for (const form of [(line: string) => line, (line: string) => line.trimEnd(), (line: string) => line.trim()]) {
    const there = (start: number) => wanted.every((line, index) => form(line) === form(source[start + index] ?? '\0'));
    if (atEnd && end - wanted.length >= from && there(end - wanted.length)) return end - wanted.length;
    for (let start = from; start + wanted.length <= source.length; start += 1) if (there(start)) return start;
  }
  return -1;
}
