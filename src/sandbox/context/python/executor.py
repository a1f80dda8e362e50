"""Runs the code of one Python context, or prepares the process from which contexts are forked.

Started by serve as `python3 -c BOOT context|zygote`, where BOOT reads this file from descriptor 21 and calls it
`<stockade>`: a name of a file would be opened for each traceback, whatever the user's code has as descriptor 21 by then.
Descriptor 20 is the control socket, 22 for a zygote the socket on which it is asked to fork. Standard input is empty,
standard output and error are pipes that serve reads: nothing of the protocol goes through them, so whatever prints,
prints.

A frame is a little-endian u32 length and that many bytes of JSON. Before each frame standard output and error are
flushed: what was written before it is in the pipes when it comes.

IPython does the work where it is installed; otherwise `PlainShell` does, with the same frames.
"""
import sys
import os

sys.path[:] = [entry for entry in sys.path if entry]

import ast
import base64
import builtins
import contextlib
import contextvars
import functools
import gc
import io
import itertools
import json
import linecache
import math
import operator
import select
import signal
import socket
import struct
import threading
import time
import traceback
import types

# Warnings about what is called from here are not about the user's code, as those of `__main__` are.
__name__ = '_stockade'

CONTROL_FD, FORK_FD, KEPT_FD_MIN = 20, 22, 23
# serve refuses longer frames; a result is cut so that it fits.
FRAME_BYTES_MAX = 8 * 1024 * 1024 - 4096
MIME_BYTES_MAX = 6 * 1024 * 1024
TRACEBACK_FRAMES_MAX = 40
MESSAGE_CHARACTERS_MAX = 64 * 1024
OUTPUT_CHARACTERS_MAX, LINE_CHARACTERS_MAX = 1024 * 1024, 8 * 1024


class State:
    """What the signal handler and the display hooks need to know."""

    run = 0            # the run that goes on; 0 between runs
    serves = False     # whether serve listens to frames
    interruptible = False
    waiting = False    # whether tasks of earlier runs go on until the next one comes
    pending = False    # an interrupt came in the middle of a frame, or of what is held
    held = False       # whether interrupts wait for the end of something short
    interrupts = 0     # how many have been raised
    answers = False    # whether somebody answers input()
    count = 0
    shown = set()      # the figures of this run


state = State()
channel = None
shell = None


class Channel:
    """The control socket."""

    def __init__(self, fd):
        self.sock = socket.socket(fileno=fd)
        self.sock.set_inheritable(False)
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.sender = None
        self.seq = 0
        self.buffer = bytearray()

    def send(self, kind, **fields):
        # A fork of the user's own has nothing to say here.
        if os.getpid() != self.pid:
            return
        flush()
        fields['t'] = kind
        fields.setdefault('run', state.run)
        for name in ('metadata', 'transient'):
            # The code may give what it likes.
            if not isinstance(fields.get(name, {}), dict):
                fields[name] = {}
        body = encode(fields)
        with self.lock:
            self.sender = threading.get_ident()
            try:
                self.sock.sendall(struct.pack('<I', len(body)) + body)
            finally:
                self.sender = None
        if state.pending and state.interruptible and threading.current_thread() is threading.main_thread():
            interrupt_now()

    def show(self, kind, **fields):
        """Sends a frame and waits until what was written before it has been read."""
        fields['run'] = run_of_this()
        waits = state.run and threading.current_thread() is threading.main_thread() and os.getpid() == self.pid
        if waits:
            self.seq += 1
            fields['seq'] = self.seq
        self.send(kind, **fields)
        while waits:
            frame = self.receive()
            waits = frame.get('t') != 'ack' or frame.get('seq') != self.seq

    def pop(self):
        if len(self.buffer) < 4:
            return None
        length = struct.unpack_from('<I', self.buffer)[0]
        if len(self.buffer) < 4 + length:
            return None
        body = bytes(self.buffer[4:4 + length])
        del self.buffer[:4 + length]
        return json.loads(body)

    def fill(self):
        data = self.sock.recv(1 << 18)
        if not data:
            os._exit(0)
        self.buffer += data

    def receive(self):
        while True:
            frame = self.pop()
            if frame is not None:
                return frame
            self.fill()


def plain(value, depth=0):
    """A value that JSON can carry: without NaN, with keys that are text."""
    if isinstance(value, float):
        return value if value == value and value not in (float('inf'), float('-inf')) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if depth > 50:
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    return str(value)


def encode(fields):
    def text(fields):
        try:
            return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(',', ':'))
        except (TypeError, ValueError, RecursionError):
            return json.dumps(plain(fields), ensure_ascii=False, allow_nan=False, separators=(',', ':'))
    body = text(fields).encode('utf-8', 'replace')
    data = fields.get('data')
    while len(body) > FRAME_BYTES_MAX and data:
        largest = max(data, key=lambda mime: len(str(data[mime])))
        del data[largest]
        fields['truncated'] = fields.get('truncated', []) + [largest]
        body = text(fields).encode('utf-8', 'replace')
    return body


def bundle(data):
    """A MIME bundle for a frame, and which of its types are not whole."""
    whole, truncated = {}, []
    for mime, value in data.items():
        mime = str(mime)
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = base64.b64encode(value).decode()
        elif mime.startswith(('text/', 'image/')) and not isinstance(value, str) and not mime.endswith('+json'):
            value = str(value)
        if isinstance(value, str) and len(value) > MIME_BYTES_MAX:
            truncated.append(mime)
            if not mime.startswith('text/'):
                continue
            value = value[:MIME_BYTES_MAX]
        whole[mime] = value
    return {'data': whole, 'truncated': truncated}


def flush():
    flush_c()
    for name in ('stdout', 'stderr', '__stdout__', '__stderr__'):
        try:
            # A cell may have deleted it.
            getattr(sys, name).flush()
        except Exception:
            pass


def publish(data, metadata=None, transient=None, update=False):
    if PLOTLY in data and CHART not in data:
        try:
            data = dict(data, **{CHART: plotly_chart(data[PLOTLY])})
        except Exception:
            pass
    if CHART in data and run_of_this() == state.run:
        state.shown.add(picture(data))
    channel.show('display', metadata=metadata or {}, transient=transient or {}, update=bool(update), **bundle(data))


def picture(data):
    """What is seen of a figure."""
    parts = {mime: dict(value, config=None) if mime == PLOTLY else value for mime, value in data.items()
             if mime in PICTURES or mime == CHART or mime.endswith('+json')}
    return hash(json.dumps(parts, sort_keys=True, default=lambda value: str(hash(value))))


def once(data):
    """The value of a cell, without the figure that the cell has shown already."""
    if CHART in data and picture(data) in state.shown:
        return {mime: value for mime, value in data.items() if mime == 'text/plain'}
    return data


# Input.

def ask(prompt='', password=False):
    flush()
    if not state.answers or not state.run or os.getpid() != channel.pid:
        raise EOFError('nobody answers: this run was started without stdin')
    channel.send('input', prompt=str(prompt), password=password)
    while True:
        frame = channel.receive()
        if frame.get('t') == 'input' and frame.get('run') == state.run:
            if frame.get('value') is None:
                raise EOFError('the client has ended the input')
            return frame['value']


class Stdin(io.TextIOBase):
    """What reads lines reads answers."""

    encoding, errors, name, mode = 'utf-8', 'strict', '<stdin>', 'r'

    def readable(self):
        return True

    def fileno(self):
        return 0

    def readline(self, size=-1):
        try:
            return ask() + '\n'
        except EOFError:
            return ''

    def read(self, size=-1):
        if size is not None and 0 <= size:
            return self.readline()
        lines = []
        while True:
            line = self.readline()
            if not line:
                return ''.join(lines)
            lines.append(line)

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line


def leave(code=0):
    raise SystemExit(code)


# Asynchronous code.

LOOP_CALLS = {'create_task', 'ensure_future', 'get_running_loop', 'current_task'}
loop = None


def wants_loop(source):
    """Whether a cell needs a running loop: one that has none can call asyncio.run()."""
    if 'await' not in source and 'async' not in source and not any(name in source for name in LOOP_CALLS):
        return False
    try:
        tree = compile(source, '<cell>', 'exec', ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, RecursionError):
        return False
    open_nodes = list(tree.body)
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)):
            return True
        if isinstance(node, ast.comprehension) and node.is_async:
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, 'attr', getattr(node.func, 'id', None))
            if name in LOOP_CALLS:
                return True
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            open_nodes.extend(ast.iter_child_nodes(node))
    return False


def run_coroutine(coroutine):
    global loop
    import asyncio
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    task = loop.create_task(coroutine)
    try:
        return loop.run_until_complete(task)
    except KeyboardInterrupt as error:
        place = waits_at(task)
        task.cancel()
        try:
            loop.run_until_complete(task)
        except BaseException:
            pass
        # The loop was interrupted, or code of the cell that has its place already.
        raise error.with_traceback(place) if place and not in_cell(error.__traceback__) else error


def waits_at(task):
    """Where a task waits, as a traceback."""
    frames, waiting = [], task.get_coro()
    while getattr(waiting, 'cr_frame', None) is not None:
        frames.append(waiting.cr_frame)
        waiting = waiting.cr_await
    place = None
    for frame in reversed(frames):
        place = types.TracebackType(place, frame, frame.f_lasti, frame.f_lineno or 1)
    return place


def in_cell(place):
    while place is not None and not is_cell(place.tb_frame.f_code.co_filename):
        place = place.tb_next
    return place is not None


def next_frame():
    """The next frame; background tasks go on until it comes."""
    frame = channel.pop()
    if frame is not None:
        return frame
    if not has_tasks():
        return channel.receive()
    ready = loop.create_future()
    fd = channel.sock.fileno()
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    try:
        state.waiting = True
        loop.run_until_complete(ready)
    except KeyboardInterrupt:
        print('KeyboardInterrupt: what an earlier cell has left running was interrupted', file=sys.stderr)
    except SystemExit as error:
        # A task's, which asyncio lets through.
        tell(error)
    finally:
        state.waiting = False
        loop.remove_reader(fd)
    return channel.receive()


def has_tasks():
    if loop is None or loop.is_closed():
        return False
    import asyncio
    return bool(asyncio.all_tasks(loop))


def in_fork():
    """A fork of the user's own: it has no part in the protocol."""
    if channel is not None and not forking:
        try:
            channel.sock.close()
        except OSError:
            pass
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGURG, signal.SIG_DFL)


def end_fork(error):
    """A fork of the user's own has come to the end of the cell: it ends as a program does."""
    if error and error['name'] != 'SystemExit':
        print(error['traceback'], file=sys.stderr)
    flush()
    os._exit(error.get('exit', 1) & 0xff if error else 0)


# A context.

kept_streams = {}


def keep_streams():
    """Where standard output and error lead, on numbers that programs do not ask for."""
    import fcntl
    for fd in (1, 2):
        kept = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, KEPT_FD_MIN)
        kept_streams[fd] = kept, which_file(kept)


def which_file(fd):
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def mend_streams():
    """Has standard output and error lead to serve again when a cell has closed them or put others in their place."""
    for name, fd in (('stdout', 1), ('stderr', 2)):
        kept, file = kept_streams[fd]
        # Unless the cell has closed all that it found.
        if which_file(fd) != file == which_file(kept):
            os.dup2(kept, fd)
        stream = getattr(sys, name, None)
        if not callable(getattr(stream, 'write', None)) or getattr(stream, 'closed', False):
            made = Output(fd)
            setattr(sys, name, made)
            setattr(sys, '__%s__' % name, made)


def use_environment(env):
    if env is None:
        return
    for name in [name for name in os.environ if name not in env and name != 'HOME']:
        del os.environ[name]
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if 'MPLBACKEND' not in os.environ:
        os.environ['MPLBACKEND'] = BACKEND
    os.environ.setdefault('PLOTLY_RENDERER', 'plotly_mimetype')
    time.tzset()


def run(frame):
    state.run, state.answers = frame['run'], bool(frame.get('stdin'))
    origin.set(state.run)
    state.shown = set()
    cwd, before, error = None, {}, None
    mend_streams()
    try:
        if frame.get('cwd'):
            try:
                cwd = os.getcwd()
            except OSError:
                cwd = '/'
            os.chdir(frame['cwd'])
        for name, value in (frame.get('env') or {}).items():
            before[name] = os.environ.get(name)
            os.environ[name] = value
        error, interrupted = interruptible(lambda: shell.execute(frame['code'], frame.get('store', True)))
        error = error or interrupted
        if os.getpid() != channel.pid:
            end_fork(error)
        _, interrupted = interruptible(show_figures)
        error = error or interrupted
    except OSError as failed:
        error = describe(failed)
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if cwd is not None:
        try:
            os.chdir(cwd)
        except OSError:
            pass
    flush()
    count = getattr(shell, 'execution_count', state.count + 1) - 1
    # serve begins the next one as soon as it has heard of this one's end: what threads write from now on is left.
    number, state.run = state.run, 0
    channel.send('done', run=number, count=count, error=error, modules=loaded(), left=has_tasks())


def context():
    """Serves until the control socket closes."""
    frame = channel.receive()
    try:
        use_environment(frame.get('env'))
        os.chdir(frame['cwd'])
    except OSError as error:
        channel.send('failed', message=str(error))
        os._exit(1)
    sys.path.insert(0, '')
    keep_streams()
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGURG, on_look)
    signal.siginterrupt(signal.SIGURG, False)
    channel.send('ready', shell=shell.kind, version=sys.version.split()[0])
    state.serves = True
    while True:
        try:
            frame = next_frame()
            if frame.get('t') == 'run':
                run(frame)
        except KeyboardInterrupt:
            pass
        except BaseException as error:
            # That of a signal's handler of the user's.
            tell(error)


# The zygote.

forking = False


def warm(sources):
    """Does once what the first cell of every context would have to do, and leaves nothing of it."""
    global channel

    class Nobody:
        sender, pid, sock = None, os.getpid(), None

        def send(self, kind, **fields):
            pass

        show = send

    kept, channel = channel, Nobody()
    for source in sources:
        shell.execute(source, True)
    if hasattr(shell, 'reset'):
        shell.reset(new_session=True)
        shell.execution_count = 1
    state.count = 0
    for name in ('last_type', 'last_value', 'last_traceback', 'last_exc'):
        sys.__dict__.pop(name, None)
    for name in ('_', 'asyncio'):
        getattr(shell, 'namespace', {}).pop(name, None)
    channel = kept


def freeze():
    gc.collect()
    gc.freeze()


def zygote():
    """Forks a context for each request, and loads the libraries that contexts have loaded before."""
    requests = socket.socket(fileno=FORK_FD)
    requests.set_inheritable(False)
    warm(('1+1', '1/0', 'import asyncio'))
    freeze()
    channel.send('ready', shell=shell.kind, version=sys.version.split()[0])
    while True:
        ready, _, _ = select.select([requests, channel.sock], [], [])
        if channel.sock in ready:
            # Before the next fork, which is to have them.
            for name in channel.receive().get('modules', []):
                if name not in sys.modules:
                    load(name)
            freeze()
        elif requests in ready:
            _, fds, _, _ = socket.recv_fds(requests, 16, 8)
            if len(fds) != 4:
                os._exit(0)
            fork(requests, fds)


def load(name):
    import importlib
    try:
        importlib.import_module(name)
    except BaseException:
        pass


def fork(requests, fds):
    """Forks twice, so that the context is a child of the sandbox's first process, which says how it ends."""
    global forking, channel
    go, goes = os.pipe()
    forking = True
    child = os.fork()
    if child:
        forking = False
        os.close(go)
        for fd in fds:
            os.close(fd)
        os.waitpid(child, 0)
        os.close(goes)
        return
    if os.fork():
        os._exit(0)
    os.close(goes)
    os.read(go, 1)
    os.close(go)
    forking = False
    control, out, err, attest = fds
    os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    requests.close()
    channel.sock.close()
    channel = Channel(control)
    os.close(out)
    os.close(err)
    numbers = sys.modules.get('numpy.random')
    if numbers is not None:
        numbers.seed()
    with socket.socket(fileno=attest) as witness:
        witness.send(b'a')
    channel.send('forked')
    # One that waits to be wanted has its own copy of what a cell changes before that.
    if not select.select([channel.sock], [], [], 0)[0]:
        warm(('1+1',))
    context()


def main():
    global channel, shell
    role = sys.argv[1]
    try:
        os.set_inheritable(CONTROL_FD, False)
    except OSError:
        pass
    channel = Channel(CONTROL_FD)
    if role == 'zygote':
        os.environ['MPLBACKEND'] = BACKEND
        os.environ.setdefault('PLOTLY_RENDERER', 'plotly_mimetype')
    shell = make_shell()
    if role == 'zygote':
        zygote()
    os.close(FORK_FD)
    context()
