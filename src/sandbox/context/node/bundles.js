// What is shown of values. Nothing of a cell's is run for it but what is there to be run for it, and what fails there
// fails no run.
const isPlain = value => value !== null && typeof value === 'object' && !util.types.isProxy(value) &&
  (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null);

function cut(data) {
  const truncated = [];
  for (const [mime, value] of Object.entries(data)) {
    if (typeof value === 'string' && value.length > MIME_BYTES_MAX) {
      truncated.push(mime);
      if (mime.startsWith('text/')) data[mime] = value.slice(0, MIME_BYTES_MAX);
      else delete data[mime];
    }
  }
  return {data, truncated};
}

// What a type is given as. What is wrong is the code's error, and no frame.
const BINARY = ['image/png', 'image/jpeg', 'application/pdf'];
const TEXTS = ['image/svg+xml', 'application/javascript'];
const BASE64 = /^[\w+/\s]*={0,2}\s*$/;
const isJson = mime => mime === 'application/json' || mime.endsWith('+json');

function checked(who, mime, value) {
  const wrong = wanted => new TypeError(`${who}: ${mime} is ${wanted}, and not ${nameOf(value)}`);
  if (mime.startsWith('text/') || TEXTS.includes(mime)) {
    if (typeof value !== 'string') throw wrong('a string');
    return value;
  }
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (BINARY.includes(mime)) {
    if (typeof value !== 'string' || !BASE64.test(value)) throw wrong('a Uint8Array, or a string of base64');
    return value;
  }
  if (typeof value === 'string' && !isJson(mime)) return value;
  let text;
  try {
    text = stringify(value, exactly);
  } catch (error) {
    throw error instanceof Inexact ? new TypeError(`${who}: JSON has no word for ${error.message}`) : error;
  }
  if (text === undefined) throw wrong('a value');
  return parse(text);
}

function checkedTypes(who, data) {
  if (!isPlain(data) || Array.isArray(data)) {
    throw new TypeError(`${who} takes an object with a value for each MIME type, and not ${nameOf(data)}`);
  }
  const all = {};
  for (const [mime, value] of Object.entries(data)) {
    if (!/^[^\s/]+\/[^\s/]+$/.test(mime)) throw new TypeError(`${who}: ${stringify(mime)} is no MIME type`);
    all[mime] = checked(who, mime, value);
  }
  return all;
}

function nameOf(value) {
  if (value === null || value === undefined || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return 'a string';
  if (typeof value !== 'object') return `a ${typeof value}`;
  let name;
  try { name = value.constructor.name; } catch {}
  return typeof name === 'string' && name ? `an object (${name})` : 'an object';
}

// JSON says null, or nothing, for what it has no word for: then there is none.
class Inexact extends Error {}

function exactly(key, value) {
  switch (typeof value) {
    case 'number':
      if (!Number.isFinite(value)) throw new Inexact(value);
      break;
    case 'undefined':
      // A property that is not there says the same.
      if (Array.isArray(this)) throw new Inexact('undefined');
      break;
    case 'function':
    case 'symbol':
      throw new Inexact(nameOf(value));
    case 'object':
      if (value !== null && WORDLESS.some(is => is(value))) throw new Inexact(nameOf(value));
  }
  return value;
}

const {isMap, isSet, isWeakMap, isWeakSet, isRegExp, isNativeError, isPromise, isAnyArrayBuffer, isArrayBufferView} = util.types;
const WORDLESS = [isMap, isSet, isWeakMap, isWeakSet, isRegExp, isNativeError, isPromise, isAnyArrayBuffer, isArrayBufferView];

// Whether there is nothing but values in it: getters and proxies are code.
function isData(root) {
  const seen = new Set([root]);
  for (const object of seen) {
    if (util.types.isProxy(object)) return false;
    // Numbers only.
    if (ArrayBuffer.isView(object)) continue;
    for (const key of Object.keys(object)) {
      const {get, value} = Object.getOwnPropertyDescriptor(object, key);
      if (get) return false;
      if (value !== null && typeof value === 'object') seen.add(value);
    }
  }
  return true;
}

function own(value) {
  if (value === null || value === undefined || util.types.isProxy(value)) return null;
  try {
    const show = value[Symbol.for('Jupyter.display')];
    const made = typeof show === 'function' ? show.call(value) : null;
    if (!isPlain(made)) return null;
    return cut(checkedTypes('Jupyter.display', made));
  } catch (error) {
    late('The value cannot show itself', error);
    return null;
  }
}

function textOf(value) {
  if (typeof value === 'string') return value;
  const options = {depth: 6, maxArrayLength: 1000};
  try {
    return util.inspect(value, options);
  } catch (error) {
    late('The value has no text', error);
  }
  try {
    return util.inspect(value, {...options, customInspect: false});
  } catch {
    return '<the value has no text>';
  }
}

function bundle(value) {
  const shown = own(value);
  if (shown) return shown;
  const data = {'text/plain': textOf(value)};
  const made = cut(data);
  try {
    if (isPlain(value) && isData(value)) {
      const text = stringify(value, exactly);
      if (text !== undefined && text.length > MIME_BYTES_MAX) made.truncated.push('application/json');
      else if (text !== undefined) data['application/json'] = parse(text);
    }
  } catch {}
  return made;
}

