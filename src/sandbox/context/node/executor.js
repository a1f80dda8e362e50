// Runs the code of one JavaScript context. serve starts node with this as its standard input.
//
// Descriptors: 20 is the control socket (a frame is a little-endian u32 length and that many bytes of JSON), 22 the
// bell that is rung to interrupt. Standard output and error are pipes that serve reads.
//
// Cells are evaluated by the inspector of this process in REPL mode: that is the console of DevTools, with top-level
// await, redeclaration of let, const and class, and the value of the last statement. An interrupt is delivered by a
// thread of its own, which terminates the execution; V8 then drops all microtasks, so nothing here waits by promises.
const {Session} = require('inspector'), net = require('net'), util = require('util'), fs = require('fs');
// A cell may put others in their place.
const {Buffer} = require('buffer'), {stringify, parse} = JSON, {Error, SyntaxError, TypeError} = globalThis;
const {AsyncLocalStorage, AsyncResource, executionAsyncId} = require('async_hooks');
const {promiseHooks} = require('v8'), mod = require('module'), path = require('path'), url = require('url');
const {Worker} = require('worker_threads'), {Readable} = require('stream'), {Script} = require('vm');

const CONTROL = 20, BELL = 22;
const FRAME_BYTES_MAX = 8 * 1024 * 1024 - 4096, MIME_BYTES_MAX = 6 * 1024 * 1024, OUTPUT_CHARACTERS_MAX = 1024 * 1024;
const sleeper = new Int32Array(new SharedArrayBuffer(4));
const realExit = process.exit.bind(process);
let run = 0, count = 0, finishRun = null, seq = 0, serves = false;

// This program was standard input: to what reads that, it is empty.
try { fs.closeSync(0); } catch {}
fs.openSync('/dev/null');

// Half of a surrogate pair is written as an escape, which readers of JSON refuse; whole pairs are not escaped.
const ESCAPES = /\\(?:u[0-9a-f]{4}|[^])/g;

function jsonOf(value) {
  const text = stringify(value);
  return text.includes('\\ud') ? text.replace(ESCAPES, one => (one.startsWith('\\ud') ? '\\ufffd' : one)) : text;
}

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
  let body = Buffer.from(jsonOf(frame));
  if (body.length > FRAME_BYTES_MAX && frame.data) {
    frame = {...frame, data: {}, truncated: Object.keys(frame.data)};
    body = Buffer.from(jsonOf(frame));
  }
  const head = Buffer.alloc(4);
  head.writeUInt32LE(body.length);
  writeAll(CONTROL, Buffer.concat([head, body]));
}

// What is printed is written at once, in order with frames; a stream that is left in the middle writes never again.
for (const [stream, fd] of [[process.stdout, 1], [process.stderr, 2]]) {
  stream._write = (chunk, encoding, done) => {
    try {
      writeAll(fd, Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk, encoding));
      done();
    } catch (error) {
      // The cell has closed it; a stream that has failed would not be one for the next.
      done(error.code === 'EBADF' ? null : error);
    }
  };
  stream._writev = null;
  const write = stream.write;
  stream.write = function (...values) {
    return isLeft() ? writeLeft(fd, ...values) : undisturbed(() => Reflect.apply(write, this, values));
  };
}

// Where the two lead, by descriptors that cells do not ask for: node can open such a one again, and not duplicate it.
const whichFile = fd => {
  try {
    const {dev, ino} = fs.fstatSync(fd);
    return `${dev}:${ino}`;
  } catch { return null; }
};
const keptStreams = [1, 2].flatMap(fd => {
  try {
    return [{fd, kept: fs.openSync(`/proc/self/fd/${fd}`, 'w'), file: whichFile(fd)}];
  } catch { return []; }
});

// Has them lead to serve again when a cell has closed them, whatever has their numbers now.
function mendStreams() {
  // libuv ends the process when it closes something of its own that has been given one of these numbers.
  try { if (whichFile(0) === null) fs.openSync('/dev/null'); } catch {}
  for (const {fd, kept, file} of keptStreams) {
    if (whichFile(fd) === file || whichFile(kept) !== file) continue;
    try {
      try { fs.closeSync(fd); } catch {}
      const opened = [];
      // The lowest number that is free is what is given.
      do opened.push(fs.openSync(`/proc/self/fd/${kept}`, 'w')); while (opened.at(-1) < fd);
      for (const one of opened) if (one !== fd) fs.closeSync(one);
    } catch {}
  }
}

// Whose output it is: what a cell starts keeps its number, through timers, promises and callbacks, and what that writes
// while another cell runs goes to serve in frames with the number. Before node 24 this would hook all promises. While
// no cell runs all goes in frames: serve may have begun the next one, whose it would be in the pipes.
const origins = parseInt(process.versions.node, 10) >= 24 ? new AsyncLocalStorage() : null;
const runOfThis = () => (origins && origins.getStore()) || run;
const isLeft = () => (run === 0 ? serves : runOfThis() !== run);

function writeLeft(fd, chunk, encoding, done) {
  if (typeof encoding === 'function') [encoding, done] = [undefined, encoding];
  const text = typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString();
  undisturbed(() => {
    for (let at = 0; at < text.length; at += OUTPUT_CHARACTERS_MAX) {
      send({t: 'output', run: runOfThis(), stream: fd, text: text.slice(at, at + OUTPUT_CHARACTERS_MAX)});
    }
  });
  if (typeof done === 'function') setImmediate(done);
  return true;
}

// Who reads is answered by whoever reads the events, or is at the end at once; in each cell anew. node's own standard
// input has ended with this program.
let input = null, answers = false;

function askForLine() {
  if (!run || !answers) return this.push(null);
  const mine = run;
  // Streams read ahead: whoever has heard enough may say so first.
  const look = () => {
    if (run !== mine || this.destroyed) return;
    if (this.readableFlowing === false && !this.listenerCount('readable')) this.once('resume', look);
    else undisturbed(() => send({t: 'input', run, prompt: '', password: false}));
  };
  setImmediate(look);
}

Object.defineProperty(process, 'stdin', {
  configurable: true, enumerable: true,
  get() {
    if (!input || input.readableEnded || input.destroyed) {
      input = Object.assign(new Readable({read: askForLine}), {fd: 0, isTTY: false});
    }
    return input;
  },
});

// Waits until serve has read what was written before: else what is written after it could be taken for that.
function show(kind, data) {
  const mine = runOfThis();
  if (!mine) return;
  seq += 1;
  undisturbed(() => {
    send({t: kind, run: mine, seq, ...data});
    while (!heard.acks.has(seq)) heard.read();
    heard.acks.clear();
  });
  // A run may have come with the answer.
  if (!run) setImmediate(heard.pump);
}

const display = value => show('display', bundle(value));
const mimes = {text: 'text/plain', html: 'text/html', markdown: 'text/markdown', svg: 'image/svg+xml', png: 'image/png',
  jpeg: 'image/jpeg', pdf: 'application/pdf', latex: 'text/latex', json: 'application/json', javascript: 'application/javascript'};
for (const [name, mime] of Object.entries(mimes)) {
  display[name] = value => show('display', cut({[mime]: checked(`display.${name}`, mime, value)}));
}
display.mime = data => show('display', cut(checkedTypes('display.mime', data)));

// Errors.
class ProcessExit extends Error {
  constructor(code) {
    super(`process.exit(${code ?? ''})`);
    this.name = 'ProcessExit';
    const status = Number(code ?? process.exitCode ?? 0);
    this.exit = Number.isSafeInteger(status) ? status & 0xff : 1;
  }
}

class Interrupted extends Error {
  constructor() {
    super('the code was interrupted');
    this.name = 'KeyboardInterrupt';
    this.stack = ['KeyboardInterrupt: ' + this.message, ...place].join('\n');
  }
}

function describe(error, line) {
  if (error !== null && typeof error === 'object' && 'message' in error) {
    let stack = '', all = '';
    try { stack = all = String(error.stack || error); } catch {}
    // As node shows it: what it was made of, and what is known beside its text.
    try { if (hasMore(error)) all = util.inspect(error); } catch {}
    // What is imported by a cell is so by a function of ours.
    const own = text => text.replace(/ imported from \S*\[stdin\]/g, '');
    const lines = withoutOurs(own(all)).slice(0, 60);
    const at = /cell-\d+\.[jt]s:(\d+)/.exec(stack);
    let name = 'Error', message = '';
    try { name = String(error.name || 'Error'); message = own(String(error.message)); } catch {}
    return {name, message: message.slice(0, 65536), traceback: lines.join('\n').slice(0, 1 << 20), line: line ?? (at ? +at[1] : null),
      ...(error instanceof ProcessExit && {exit: error.exit})};
  }
  const text = typeof error === 'string' ? error : util.inspect(error);
  return {name: 'Error', message: text.slice(0, 65536), traceback: 'Uncaught ' + util.inspect(error).slice(0, 1 << 20), line: line ?? null};
}

const late = (what, error, write = text => process.stderr.write(text)) => {
  if (error instanceof ProcessExit) return;
  let text = 'an error without text';
  try { text = withoutOurs(util.inspect(error)).join('\n'); } catch {}
  write(`${what}: ${text}\n`);
};
// Whether what runs was begun before the run that goes on. Where no store says so its number does: numbers are given in
// order, and what has none of its own has 0 or 1.
let firstId = 0;
const isEarlier = () => (origins ? isLeft() : run !== 0 && executionAsyncId() > 1 && executionAsyncId() < firstId);
const tellLeft = text => undisturbed(() => send({t: 'output', run: 0, stream: 2, text}));
process.exit = code => {
  const error = new ProcessExit(code);
  // What an earlier cell has left ends by it, and not this one.
  if (finishRun && !isEarlier()) finishRun(describe(error));
  throw error;
};
process.on('unhandledRejection', error => late('Unhandled promise rejection', error));
process.on('uncaughtException', error => {
  if (isEarlier()) late('Uncaught', error, tellLeft);
  else if (finishRun && !(error instanceof ProcessExit)) finishRun(describe(error));
  else late('Uncaught', error);
});

// Interrupts: a thread waits for the bell and terminates what does not end by itself. The two agree by a word on who
// may do what: a termination that comes in the middle of a frame would tear it, and of what is read, lose it. The bell
// says which run is meant; one that has not begun is behind something that was left running. By its negative it is
// looked whether that run has begun: what still has the thread then is ended for it.
//
// Many callbacks that an earlier cell has left come to their end by themselves, as nothing makes another one for the
// same turn of the event loop. So for a run that waits, only one that goes on is terminated: they are counted.
const TURN = 0, FREE = 0, STRIKING = 1, HELD = 2, RUN = 1, ASKED = 2, LAST = 3, STRUCK = 4, CALLBACKS = 5, WAITS = 6;
const STRIKE_MS = 20, AGAIN_MS = 4, LOOK_MS = 100;
const shared = new Int32Array(new SharedArrayBuffer(28));
const watchdog = new Worker(`
  const {parentPort, workerData} = require('worker_threads'), {Session} = require('inspector'), net = require('net');
  const fs = require('fs'), {shared, bell, TURN, FREE, STRIKING, RUN, ASKED, LAST, STRUCK, STRIKE_MS, AGAIN_MS} = workerData;
  const {CALLBACKS, WAITS, LOOK_MS} = workerData;
  const session = new Session();
  session.connectToMainThread();
  let asking = false, looking = false, run = 0, since = 0, ran = 0, callbacks = 0, timer = null;
  const task = name => {
    try { return fs.readFileSync('/proc/self/task/' + process.pid + '/' + name, 'latin1'); } catch { return ''; }
  };
  const used = () => +task('schedstat').split(' ')[0] / 1e6;
  // What wants to run and was not let is not stuck; to terminate it would break node's own code.
  const starves = () => Date.now() - since < 20 * STRIKE_MS && used() - ran < AGAIN_MS && task('stat').includes(') R ');
  function ask(patience) {
    since = Date.now();
    ran = used();
    callbacks = Atomics.load(shared, CALLBACKS);
    Atomics.store(shared, WAITS, looking ? 0 : 1);
    parentPort.postMessage('interrupt');
    later(patience);
  }
  function later(delay) {
    clearTimeout(timer);
    timer = setTimeout(strike, delay);
  }
  function strike() {
    if (!isAsked()) return;
    if (starves()) return later(AGAIN_MS);
    if (looking && callbacks !== Atomics.load(shared, CALLBACKS)) {
      [callbacks, since, ran] = [Atomics.load(shared, CALLBACKS), Date.now(), used()];
      Atomics.store(shared, WAITS, 0);
      Atomics.notify(shared, TURN);
      return later(LOOK_MS);
    }
    if (Atomics.compareExchange(shared, TURN, FREE, STRIKING) !== FREE) {
      Atomics.store(shared, WAITS, 1);
      return later(1);
    }
    // Before that the run may have ended, and what goes on is not to be struck; from now on it does not.
    if (isAsked()) terminate();
    else Atomics.store(shared, TURN, FREE);
  }
  function isAsked() {
    asking = Atomics.load(shared, ASKED) === run + 1 && Atomics.load(shared, RUN) === run;
    return asking;
  }
  function terminate() {
    let ended = false;
    Atomics.store(shared, STRUCK, 1);
    meet();
    session.post('Runtime.evaluate', {expression: '__stockade_place()', silent: true});
    session.post('Runtime.terminateExecution', () => {
      ended = true;
      Atomics.store(shared, TURN, FREE);
      ask(AGAIN_MS);
    });
    Atomics.notify(shared, TURN);
    // Native code of node's may catch it; V8 then waits for its end for ever, and takes no other. What ends by a limit
    // of its own makes V8 forget it; not before it has begun, of which another answer tells.
    const forget = () => {
      if (!ended) session.post('Runtime.evaluate', {expression: 'for (;;);', timeout: 1}, () => setTimeout(forget, AGAIN_MS));
    };
    session.post('Runtime.getIsolateId', () => setTimeout(forget, AGAIN_MS));
  }
  // Whoever opens a FIFO waits in the kernel for the other end, and no termination reaches it there: it is met, and
  // reads nothing, or writes what nobody reads. /proc names the call, its own memory the path (proc_pid_syscall(5)).
  const OPENS = {x64: {2: 0, 257: 1}, arm64: {56: 1}}[process.arch] || {};
  function meet() {
    const [call, ...values] = task('syscall').split(' '), at = OPENS[call];
    if (at === undefined) return;
    try {
      const memory = fs.openSync('/proc/self/mem', 'r'), bytes = Buffer.alloc(4096);
      // The path may end before its page does, and the page be the last one.
      const begin = BigInt(values[at]), page = 4096 - Number(begin % 4096n);
      let length = fs.readSync(memory, bytes, 0, page, begin);
      if (!bytes.subarray(0, length).includes(0)) {
        length += fs.readSync(memory, bytes, length, 4096 - length, begin + BigInt(length));
      }
      fs.closeSync(memory);
      const path = bytes.subarray(0, bytes.indexOf(0)), {O_RDONLY, O_WRONLY, O_NONBLOCK} = fs.constants;
      if (!fs.statSync(path).isFIFO()) return;
      const writes = (Number(values[at + 1]) & 3) === O_WRONLY;
      const end = fs.openSync(path, (writes ? O_RDONLY : O_WRONLY) | O_NONBLOCK);
      // A reader ends when there is no writer. A writer is to end before its write can fail: node's code for that does
      // not bear a termination.
      if (writes) setTimeout(() => fs.closeSync(end), 50 * STRIKE_MS);
      else fs.closeSync(end);
    } catch {}
  }
  function begin(wanted) {
    const now = Atomics.load(shared, RUN), looks = wanted < 0;
    if (looks && (now !== 0 || Atomics.load(shared, LAST) >= -wanted)) return;
    const asked = asking && now === run && Atomics.load(shared, ASKED) === run + 1;
    if (now !== 0 && now !== wanted) return;
    looking = wanted <= 0 && (looking || !asked);
    if (asked) return;
    asking = true;
    run = now;
    Atomics.store(shared, ASKED, run + 1);
    ask(looks ? LOOK_MS : STRIKE_MS);
  }
  const socket = new net.Socket({fd: bell, readable: true, writable: false});
  socket.on('data', bytes => begin(bytes.readInt32LE(bytes.length - 4)));
  socket.on('error', () => {});
  socket.on('close', () => process.exit());
  parentPort.on('message', () => setTimeout(begin, 1, 0));
  parentPort.postMessage('ready');
`, {eval: true, execArgv: [], stdout: false, stderr: false,
  workerData: {shared, bell: BELL, TURN, FREE, STRIKING, RUN, ASKED, LAST, STRUCK, CALLBACKS, WAITS, STRIKE_MS, AGAIN_MS, LOOK_MS}});
watchdog.unref();
const LOOKS = 3;
let unsettled = 0;
// No cell begins before it can be interrupted.
let watched = false;
function watch() {
  watched = true;
  setImmediate(heard.pump);
}
watchdog.on('error', watch);
watchdog.on('message', what => {
  if (what === 'ready') return watch();
  if (!isAsked()) return;
  beginPatience();
  const struck = Atomics.exchange(shared, STRUCK, 0) === 1;
  if (finishRun) {
    unsettled = LOOKS;
    finishRun(describe(new Interrupted()));
  } else {
    take(FREE);
    Atomics.store(shared, ASKED, 0);
    if (struck) process.stderr.write('KeyboardInterrupt: what an earlier cell has left running was interrupted\n');
    unsettled = Math.max(0, unsettled - 1);
    setImmediate(heard.pump);
  }
  // What was put off may be stuck as well: the next run waits until that was looked at some times.
  if (patient && (unsettled > 0 || ticks > 0)) watchdog.postMessage('look');
});

// Whether what runs is to end. One that was asked for late, when no run was on or the one before, is not for the run that
// has begun meanwhile: it is asked for by the number of the run, and one more, because none has 0.
const isAsked = () => Atomics.load(shared, ASKED) === Atomics.load(shared, RUN) + 1;

// Takes the turn. A termination that is under way ends this: whoever calls has done nothing yet.
function take(what) {
  for (;;) {
    const found = Atomics.load(shared, TURN);
    if (found !== STRIKING && Atomics.compareExchange(shared, TURN, found, what) === found) return;
  }
}

function undisturbed(action) {
  if (Atomics.load(shared, TURN) === HELD) return action();
  take(HELD);
  try {
    return action();
  } finally {
    Atomics.store(shared, TURN, FREE);
    // Code that does nothing but show things would have the turn whenever that is looked at.
    if (isAsked() && Atomics.load(shared, WAITS) === 1) Atomics.wait(shared, TURN, FREE, 2 * STRIKE_MS);
  }
}

// Ticks that make ticks leave the event loop no turn. After an interrupt each waits for one, until there are none.
const nextTick = process.nextTick;
let patient = false, ticks = 0;

process.nextTick = function (callback, ...values) {
  if (!patient || typeof callback !== 'function') return nextTick.call(process, callback, ...values);
  ticks += 1;
  setImmediate(() => {
    ticks -= 1;
    nextTick.call(process, callback, ...values);
  });
};

function beginPatience() {
  if (patient) return;
  patient = true;
  const look = () => {
    if (ticks > 0) return setImmediate(look);
    patient = false;
    heard.pump();
  };
  setImmediate(look);
}

// What the cell has started hears of it by SIGINT; this process does by the bell.
process.on('SIGINT', () => {});

// The value of the last cell, as in node's REPL; and like there it is the user's own once that assigns to it.
let lastValue;
Object.defineProperty(globalThis, '_', {
  configurable: true, enumerable: false,
  get: () => lastValue,
  set: value => Object.defineProperty(globalThis, '_', {value, writable: true, configurable: true, enumerable: true}),
});

// What begins with a brace is an object where it can be one, as in node's REPL: a semicolon at its end makes it a block.
function asExpression(code) {
  if (!/^\s*\{/.test(code) || /;\s*$/.test(code)) return code;
  const wrapped = code.replace('{', '({') + '\n)';
  try {
    new Script(`(async () => ${wrapped})`);
    return wrapped;
  } catch {
    return code;
  }
}

// V8 looks for terminations where a function of JavaScript's begins, and in loops after so much of their code only:
// one that does nothing but call these would go on for minutes.
for (const [name, native] of [['parse', parse], ['stringify', stringify]]) {
  const length = native.length;
  const value = {[name](...values) { return Reflect.apply(native, this, values); }}[name];
  Object.defineProperty(value, 'length', {value: length, configurable: true});
  Object.defineProperty(JSON, name, {value, writable: true, configurable: true, enumerable: false});
}

let grabbed;
Object.defineProperty(globalThis, '__stockade_grab', {value: value => { grabbed = value; }});
let session;

// Whoever waits for a promise by the inspector is told when it is collected, and told in the middle of a collection: V8
// ends the process then. So the promise of a cell is kept until the inspector has answered, and a session that never
// will, because the cell was interrupted, is left for another one. What cells declare is not the session's.
let promise, unhook = null;

function connect() {
  if (session) session.disconnect();
  session = new Session();
  session.connect();
  promise = undefined;
}

connect();

// The first promise that is made is that of the cell: its code begins in it.
function keepPromise() {
  if (unhook) unhook();
  unhook = promiseHooks.onInit(made => {
    promise = made;
    unhook();
    unhook = null;
  });
}

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
  [input, answers, place] = [null, frame.stdin === true, []];
  count += 1;
  firstId = new AsyncResource('cell', {requireManualDestroy: true}).asyncId();
  const before = {}, cwd = process.cwd();
  let ended = false, answered = false;
  const finish = (error, value, has) => {
    if (ended) return;
    let shown = null;
    if (has && !error) { try { shown = bundle(value); } catch {} }
    take(HELD);
    // What the cell had started has ended by it as well.
    if (error && isAsked()) error = describe(new Interrupted());
    // By what was asked for its text.
    if (ended) return;
    ended = true;
    if (!error) lastValue = value;
    finishRun = null;
    Atomics.store(shared, LAST, run);
    Atomics.store(shared, RUN, 0);
    if (answered) session.post('Runtime.releaseObjectGroup', {objectGroup: 'cell'}, () => {});
    for (const [name, old] of Object.entries(before)) {
      if (old === undefined) delete process.env[name];
      else process.env[name] = old;
    }
    if (frame.cwd) { try { process.chdir(cwd); } catch {} }
    if (shown) {
      try {
        send({t: 'result', run, metadata: {}, ...shown});
      } catch (failed) { late('The value cannot be shown', failed); }
    }
    const last = {t: 'done', run, count, error: error || undefined};
    run = 0;
    send(last);
    Atomics.store(shared, ASKED, 0);
    Atomics.store(shared, TURN, FREE);
    // The cell may still be on the stack, and the session with it.
    setImmediate(() => { if (!answered) connect(); heard.pump(); });
  };
  finishRun = finish;
  mendStreams();
  try {
    for (const [name, value] of Object.entries(frame.env || {})) { before[name] = process.env[name]; process.env[name] = value; }
    if (frame.cwd) process.chdir(frame.cwd);
  } catch (error) { return finish(describe(error)); }
  if (frame.wrong) {
    const {wrong} = frame;
    return finish({...wrong, traceback: wrong.traceback.replace('cell.ts', `cell-${count}.ts`)});
  }
  Atomics.store(shared, RUN, run);
  const plain = withoutMap(frame.code, count), mapped = plain !== frame.code, code = asExpression(plain);
  const number = count;
  // What a getter of the cell's throws here would be nobody's.
  const guarded = then => (...answer) => { try { then(...answer); } catch (error) { finish(describe(error)); } };
  let conflicts = 0, posting = false;
  const heardOf = (failed, made) => {
    if (ended) return;
    // What has run is answered from a microtask; at once, what has not.
    const refused = posting;
    answered = true;
    promise = undefined;
    if (failed) return finish(describe(new Interrupted()));
    if (made.exceptionDetails) {
      const details = made.exceptionDetails;
      return grab(details.exception || {value: details.text}, guarded(error => {
        const conflict = error instanceof SyntaxError && CONFLICT.exec(error.message);
        if (conflict && refused && !moved.has(conflict[1]) && conflicts++ < CONFLICTS_MAX) {
          move(conflict[1]);
          return evaluate();
        }
        const syntax = error instanceof SyntaxError && !/cell-\d+\.[jt]s:\d+:\d+\)?$/m.test(String(error.stack));
        finish(describe(error, syntax ? origin(String(count), details.lineNumber + 1, details.columnNumber + 1)[0] : undefined));
      }));
    }
    const found = made.result;
    if (found.type === 'undefined') return finish(null);
    grab(found, guarded(value => {
      // Called on an object, `this` of a symbol is its wrapper.
      if (found.type === 'symbol') value = value.valueOf();
      if (util.types.isPromise(value)) {
        value.then(settled => finish(null, settled, settled !== undefined), error => finish(describe(error)));
      } else finish(null, value, true);
    }));
  };
  const evaluate = () => {
    const expression = (withMoved(code) ?? code) + `\n//# sourceURL=cell-${number}.${mapped ? 'ts' : 'js'}`;
    answered = false;
    keepPromise();
    posting = true;
    inRun(() => session.post('Runtime.evaluate', {expression, replMode: true, awaitPromise: true, objectGroup: 'cell'},
      guarded(heardOf)));
    posting = false;
  };
  evaluate();
}

const inRun = action => (origins ? origins.run(run, action) : action());

// What serve says.
const heard = {
  bytes: Buffer.alloc(0), frames: [], acks: new Set(),
  take(data) {
    heard.bytes = heard.bytes.length ? Buffer.concat([heard.bytes, data]) : data;
    while (heard.bytes.length >= 4) {
      const length = heard.bytes.readUInt32LE(0);
      if (heard.bytes.length < 4 + length) break;
      const frame = parse(heard.bytes.toString('utf8', 4, 4 + length));
      heard.bytes = heard.bytes.subarray(4 + length);
      if (frame.t === 'ack') heard.acks.add(frame.seq);
      else if (frame.t === 'input') heard.answer(frame);
      else heard.frames.push(frame);
    }
  },
  answer(frame) {
    if (frame.run === run && input) input.push(typeof frame.value === 'string' ? `${frame.value}\n` : null);
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
    if (run || heard.frames.length === 0 || (patient && unsettled > 0)) return;
    if (!watched && heard.frames[0].t === 'run') return;
    take(FREE);
    Atomics.store(shared, ASKED, 0);
    const frame = heard.frames.shift();
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
  // node's own words for these are turned off, as there are some for what is used here, all of them until now.
  process.on('warning', ({name, code, message}) => {
    process.stderr.write(`(node:${process.pid}) ${code ? `[${code}] ` : ''}${name}: ${message}\n`);
  });
  send({t: 'ready', run: 0, shell: 'node', version: process.version});
  serves = true;
}

process.argv.splice(1);
const control = new net.Socket({fd: CONTROL, readable: true, writable: false});
control.on('data', data => { heard.take(data); setImmediate(heard.pump); });
control.on('error', () => realExit(0));
control.on('close', () => realExit(0));
