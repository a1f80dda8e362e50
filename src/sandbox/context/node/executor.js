// Runs the code of one JavaScript context. serve starts node with this as its standard input.
//
// Descriptors: 20 is the control socket (a frame is a little-endian u32 length and that many bytes of JSON), 22 the
// bell that is rung to interrupt. Standard output and error are pipes that serve reads.
//
// Cells are evaluated by the inspector of this process in REPL mode: that is the console of DevTools, with top-level
// await, redeclaration of let, const and class, and the value of the last statement. An interrupt is delivered by a
// thread of its own, which terminates the execution; V8 then drops all microtasks, so nothing here waits by promises.
'use strict';
// Names of ours are not the cells'.
(() => {
const {Session} = require('inspector'), net = require('net'), util = require('util'), fs = require('fs');
const mod = require('module'), path = require('path'), {Worker} = require('worker_threads');

const CONTROL = 20, BELL = 22;
const FRAME_BYTES_MAX = 8 * 1024 * 1024 - 4096, MIME_BYTES_MAX = 6 * 1024 * 1024;
const sleeper = new Int32Array(new SharedArrayBuffer(4));
const realExit = process.exit.bind(process);
let run = 0, count = 0, finishRun = null, seq = 0;

const wellFormed = text => (text.toWellFormed ? text.toWellFormed() : Buffer.from(text, 'utf8').toString('utf8'));

function writeAll(fd, bytes) {
  for (let at = 0; at < bytes.length;) {
    try {
      at += fs.writeSync(fd, bytes, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(sleeper, 0, 0, 1);
    }
  }
}

function send(frame) {
  let body = Buffer.from(wellFormed(JSON.stringify(frame)));
  if (body.length > FRAME_BYTES_MAX && frame.data) {
    frame = {...frame, data: {}, truncated: Object.keys(frame.data)};
    body = Buffer.from(wellFormed(JSON.stringify(frame)));
  }
  const head = Buffer.alloc(4);
  head.writeUInt32LE(body.length);
  writeAll(CONTROL, Buffer.concat([head, body]));
}

// What is printed is written at once, in order with frames.
for (const [stream, fd] of [[process.stdout, 1], [process.stderr, 2]]) {
  stream._write = (chunk, encoding, done) => {
    try {
      writeAll(fd, Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk, encoding));
      done();
    } catch (error) {
      done(error);
    }
  };
  stream._writev = null;
}

// What is shown.
const isPlain = value => value !== null && typeof value === 'object' &&
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

function bundle(value) {
  const own = value !== null && value !== undefined && value[Symbol.for('Jupyter.display')];
  if (typeof own === 'function') {
    const made = own.call(value);
    if (isPlain(made)) return cut({...made});
  }
  const data = {'text/plain': typeof value === 'string' ? value : util.inspect(value, {depth: 6, maxArrayLength: 1000})};
  if (isPlain(value)) {
    try {
      const text = JSON.stringify(value);
      if (text !== undefined && text.length <= MIME_BYTES_MAX) data['application/json'] = JSON.parse(text);
    } catch {}
  }
  return cut(data);
}

// Waits until serve has read what was written before: else what is written after it could be taken for that.
function show(kind, data) {
  if (!run) return;
  seq += 1;
  send({t: kind, run, seq, ...data});
  while (!heard.acks.has(seq)) heard.read();
  heard.acks.clear();
}

const display = value => show('display', bundle(value));
const mimes = {text: 'text/plain', html: 'text/html', markdown: 'text/markdown', svg: 'image/svg+xml', png: 'image/png',
  jpeg: 'image/jpeg', pdf: 'application/pdf', latex: 'text/latex', json: 'application/json', javascript: 'application/javascript'};
for (const [name, mime] of Object.entries(mimes)) display[name] = value => show('display', cut({[mime]: value}));
display.mime = data => show('display', cut({...data}));

// Errors.
class ProcessExit extends Error {
  constructor(code) {
    super(`process.exit(${code ?? ''})`);
    this.name = 'ProcessExit';
  }
}

class Interrupted extends Error {
  constructor() {
    super('the code was interrupted');
    this.name = 'KeyboardInterrupt';
    this.stack = 'KeyboardInterrupt: ' + this.message;
  }
}

function describe(error, line) {
  if (error !== null && typeof error === 'object' && 'message' in error) {
    let stack = '';
    try { stack = String(error.stack || error); } catch {}
    const lines = stack.split('\n').filter(text => !/node:|\/proc\/self\/fd|\[stdin\]|\[eval\]/.test(text)).slice(0, 60);
    const at = /cell-\d+\.js:(\d+)/.exec(stack);
    let name = 'Error', message = '';
    try { name = String(error.name || 'Error'); message = String(error.message); } catch {}
    return {name, message: message.slice(0, 65536), traceback: lines.join('\n').slice(0, 1 << 20), line: line ?? (at ? +at[1] : null)};
  }
  const text = typeof error === 'string' ? error : util.inspect(error);
  return {name: 'Error', message: text.slice(0, 65536), traceback: 'Uncaught ' + util.inspect(error).slice(0, 1 << 20), line: line ?? null};
}

const late = (what, error) => {
  if (!(error instanceof ProcessExit)) process.stderr.write(`${what}: ${util.inspect(error)}\n`);
};
process.exit = code => {
  const error = new ProcessExit(code);
  if (finishRun) finishRun(describe(error));
  throw error;
};
process.on('unhandledRejection', error => late('Unhandled promise rejection', error));
process.on('uncaughtException', error => {
  if (finishRun && !(error instanceof ProcessExit)) finishRun(describe(error));
  else late('Uncaught', error);
});

// Interrupts: a thread waits for the bell and terminates what does not end by itself.
const flag = new Int32Array(new SharedArrayBuffer(8));
const watchdog = new Worker(`
  const {parentPort, workerData} = require('worker_threads'), {Session} = require('inspector'), net = require('net');
  const flag = workerData.flag, session = new Session();
  session.connectToMainThread();
  const bell = new net.Socket({fd: workerData.bell, readable: true, writable: false});
  bell.on('data', () => {
    if (Atomics.load(flag, 1) === 0) return;
    const mine = Atomics.load(flag, 1);
    Atomics.store(flag, 0, 0);
    parentPort.postMessage('interrupt');
    const again = () => {
      if (Atomics.load(flag, 0) !== 0 || Atomics.load(flag, 1) !== mine) return;
      session.post('Runtime.terminateExecution', () => {});
      setTimeout(again, 20);
    };
    setTimeout(again, 20);
  });
  bell.on('error', () => {});
  bell.on('close', () => process.exit());
`, {eval: true, workerData: {flag, bell: BELL}, execArgv: [], stdout: false, stderr: false});
watchdog.unref();
watchdog.on('error', () => {});
watchdog.on('message', () => {
  Atomics.store(flag, 0, 1);
  if (finishRun) finishRun(describe(new Interrupted()));
});

// What the cell has started hears of it by SIGINT; this process does by the bell.
process.on('SIGINT', () => {});

// Globals of a cell, as in a module.
function cellGlobals() {
  const require = mod.createRequire(path.join(process.cwd(), 'cell.js'));
  const load = source => {
    source = String(source);
    if (/^\.{0,2}\//.test(source)) source = 'file://' + path.resolve(process.cwd(), source);
    else if (!source.includes(':') && !mod.builtinModules.includes(source)) {
      try { source = 'file://' + require.resolve(source); } catch {}
    }
    return import(source);
  };
  const module = {exports: {}};
  for (const [name, value] of Object.entries({require, module, exports: module.exports, display})) {
    Object.defineProperty(globalThis, name, {value, writable: true, configurable: true, enumerable: false});
  }
  Object.defineProperty(globalThis, '__import', {value: load, configurable: true});
}

let grabbed;
Object.defineProperty(globalThis, '__stockade_grab', {value: value => { grabbed = value; }});
const session = new Session();
session.connect();

const primitive = found => {
  if (found.unserializableValue === undefined) return found.subtype === 'null' ? null : found.value;
  const text = found.unserializableValue;
  return found.type === 'bigint' ? BigInt(text.slice(0, -1)) : Number(text);
};

function grab(found, then) {
  if (!found.objectId) return then(primitive(found));
  session.post('Runtime.callFunctionOn',
    {objectId: found.objectId, functionDeclaration: 'function () { "use strict"; __stockade_grab(this); }'},
    () => { const value = grabbed; grabbed = undefined; then(value); });
}

// Always entered from a macrotask: see above.
function start(frame) {
  run = frame.run;
  count += 1;
  const before = {}, cwd = process.cwd();
  let ended = false;
  const finish = (error, value, has) => {
    if (ended) return;
    ended = true;
    finishRun = null;
    Atomics.store(flag, 0, 1);
    Atomics.store(flag, 1, 0);
    session.post('Runtime.releaseObjectGroup', {objectGroup: 'cell'}, () => {});
    for (const [name, old] of Object.entries(before)) {
      if (old === undefined) delete process.env[name];
      else process.env[name] = old;
    }
    if (frame.cwd) { try { process.chdir(cwd); } catch {} }
    if (has && !error) {
      try { send({t: 'result', run, metadata: {}, ...bundle(value)}); } catch (failed) { error = describe(failed); }
    }
    const last = {t: 'done', run, count, error: error || undefined};
    run = 0;
    send(last);
    setImmediate(heard.pump);
  };
  finishRun = finish;
  try {
    for (const [name, value] of Object.entries(frame.env || {})) { before[name] = process.env[name]; process.env[name] = value; }
    if (frame.cwd) process.chdir(frame.cwd);
  } catch (error) { return finish(describe(error)); }
  Atomics.store(flag, 1, count);
  const expression = frame.code + `\n//# sourceURL=cell-${count}.js`;
  session.post('Runtime.evaluate', {expression, replMode: true, awaitPromise: true, objectGroup: 'cell'}, (failed, made) => {
    if (ended) return;
    if (failed) return finish(describe(new Interrupted()));
    if (made.exceptionDetails) {
      const details = made.exceptionDetails;
      return grab(details.exception || {value: details.text}, error => {
        const syntax = error instanceof SyntaxError && !/cell-\d+\.js:\d+:\d+\)?$/m.test(String(error.stack));
        finish(describe(error, syntax ? details.lineNumber + 1 : undefined));
      });
    }
    const found = made.result;
    if (found.type === 'undefined') return finish(null);
    grab(found, value => {
      // Called on an object, `this` of a symbol is its wrapper.
      if (found.type === 'symbol') value = value.valueOf();
      if (value !== null && typeof value === 'object' && typeof value.then === 'function' && util.types.isPromise(value)) {
        value.then(settled => finish(null, settled, settled !== undefined), error => finish(describe(error)));
      } else finish(null, value, true);
    });
  });
}

// What serve says.
const heard = {
  bytes: Buffer.alloc(0), frames: [], acks: new Set(),
  take(data) {
    heard.bytes = heard.bytes.length ? Buffer.concat([heard.bytes, data]) : data;
    while (heard.bytes.length >= 4) {
      const length = heard.bytes.readUInt32LE(0);
      if (heard.bytes.length < 4 + length) break;
      const frame = JSON.parse(heard.bytes.toString('utf8', 4, 4 + length));
      heard.bytes = heard.bytes.subarray(4 + length);
      if (frame.t === 'ack') heard.acks.add(frame.seq);
      else heard.frames.push(frame);
    }
  },
  // Waits for more, in the middle of a cell.
  read() {
    const chunk = Buffer.alloc(65536);
    try {
      const length = fs.readSync(CONTROL, chunk);
      if (length === 0) realExit(0);
      heard.take(chunk.subarray(0, length));
    } catch (error) {
      if (error.code !== 'EAGAIN') realExit(0);
      Atomics.wait(sleeper, 0, 0, 1);
    }
  },
  pump() {
    if (run) return;
    const frame = heard.frames.shift();
    if (!frame) return;
    if (frame.t === 'init') init(frame);
    else if (frame.t === 'run') return start(frame);
    setImmediate(heard.pump);
  },
};

function init(frame) {
  try {
    for (const name of Object.keys(process.env)) if (!(name in frame.env) && name !== 'HOME') delete process.env[name];
    Object.assign(process.env, frame.env);
    process.chdir(frame.cwd);
  } catch (error) {
    send({t: 'failed', run: 0, message: String(error.message)});
    realExit(1);
  }
  cellGlobals();
  send({t: 'ready', run: 0, shell: 'node', version: process.version});
}

process.argv.splice(1);
const control = new net.Socket({fd: CONTROL, readable: true, writable: false});
control.on('data', data => { heard.take(data); setImmediate(heard.pump); });
control.on('error', () => realExit(0));
control.on('close', () => realExit(0));
})();
