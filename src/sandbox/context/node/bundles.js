// What is shown of values. Nothing of a cell's is run for it but what is there to be run for it, and what fails there
// fails no run.
const isPlain = value => value !== null && typeof value === 'object' && !util.types.isProxy(value) &&
  (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null);

function cut(data) {
  const truncated = [];
  for (const [mime, value] of Object.entries(data)) {
    if (value instanceof Uint8Array) data[mime] = Buffer.from(value).toString('base64');
    if (typeof data[mime] === 'string' && data[mime].length > MIME_BYTES_MAX) {
      truncated.push(mime);
      if (mime.startsWith('text/')) data[mime] = data[mime].slice(0, MIME_BYTES_MAX);
      else delete data[mime];
    }
  }
  return {data, truncated};
}

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
    const shown = cut({...made});
    // What is no JSON fails here.
    stringify(shown.data);
    return shown;
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
      const text = stringify(value);
      if (text !== undefined && text.length > MIME_BYTES_MAX) made.truncated.push('application/json');
      else if (text !== undefined) data['application/json'] = parse(text);
    }
  } catch {}
  return made;
}

