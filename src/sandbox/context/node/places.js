
// Places in cells that were rewritten are named as they were written, by the source maps at their ends: TypeScript's
// types are gone, and with them lines.
const MAP = /\n\/\/# sourceMappingURL=data:application\/json;charset=utf-8;base64,([\w+/=]+)\s*$/;
const MAPS_MAX = 500;
const maps = new Map();

function withoutMap(code, number) {
  const found = MAP.exec(code);
  if (!found) return code;
  maps.set(String(number), found[1]);
  if (maps.size > MAPS_MAX) maps.delete(maps.keys().next().value);
  return code.slice(0, found.index);
}

// Line and column, both from 1.
function origin(number, line, column) {
  let map = maps.get(number);
  if (typeof map === 'string') {
    map = new mod.SourceMap(parse(Buffer.from(map, 'base64').toString()));
    maps.set(number, map);
  }
  const found = map && map.findEntry(line - 1, column - 1);
  return found && found.originalLine !== undefined ? [found.originalLine + 1, found.originalColumn + 1] : [line, column];
}

// A stack with the cells' places, and without what called the cell.
function stackOf(error, sites) {
  let head = 'Error';
  try { head = Error.prototype.toString.call(error); } catch {}
  return [head, ...placesOf(sites)].join('\n');
}

function placesOf(sites) {
  const ours = sites.findIndex(site => /^(\[stdin\]|node:inspector)/.test(site.getFileName() || ''));
  if (ours > 0) sites = sites.slice(0, ours);
  const place = (_, number, line, column) => `cell-${number}.ts:${origin(number, +line, +column).join(':')}`;
  return sites.map(site => '    at ' + String(site).replace(/\bcell-(\d+)\.ts:(\d+):(\d+)/g, place));
}

Object.defineProperty(Error, 'prepareStackTrace', {value: stackOf, writable: true, configurable: true, enumerable: false});

// The lines of an error's text that are no places of node's or ours. Where one opens what follows, the one before does.
function withoutOurs(text) {
  const lines = [];
  for (const line of text.split('\n')) {
    if (!/^ +at .*(node:|\/proc\/self\/fd|\[stdin\]|\[eval\])/.test(line)) lines.push(line);
    else if (line.endsWith(' {') && lines.length > 0) lines.push(lines.pop() + ' {');
  }
  return lines;
}

// Whether an error has more than a name, a message and a place.
function hasMore(error) {
  if (error instanceof ProcessExit || error instanceof Interrupted) return false;
  return ['cause', 'errors'].some(name => Object.hasOwn(error, name)) ||
    Object.keys(error).some(name => name !== 'name' && name !== 'message' && name !== 'stack');
}

// Where the code is, which the thread that is about to terminate it asks in the middle of it. Nothing of the code's own
// is run for that.
const PLACES_MAX = 60;
let place = [];
Object.defineProperty(globalThis, '__stockade_place', {value: () => {
  const {prepareStackTrace, stackTraceLimit} = Error, asked = {};
  try {
    Error.stackTraceLimit = PLACES_MAX;
    const isOurs = site => /^(\[stdin\]|node:|$)/.test(site.getScriptNameOrSourceURL() || '');
    Error.prepareStackTrace = (_, sites) => placesOf(sites.filter(site => !isOurs(site)));
    Error.captureStackTrace(asked);
    place = asked.stack;
  } catch {
    // There is no room left on its stack.
  } finally {
    Error.prepareStackTrace = prepareStackTrace;
    Error.stackTraceLimit = stackTraceLimit;
  }
}});
