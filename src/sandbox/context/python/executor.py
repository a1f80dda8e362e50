"""Runs the code of one Python context, or prepares the process from which contexts are forked.

Started by serve as `python3 /proc/self/fd/21 context|zygote`. Descriptors: 20 is the control socket, 21 this file,
22 for a zygote the socket on which it is asked to fork. Standard input is empty, standard output and error are pipes
that serve reads: nothing of the protocol goes through them, so whatever prints, prints.

A frame is a little-endian u32 length and that many bytes of JSON. Before each frame standard output and error are
flushed: what was written before it is in the pipes when it comes.

IPython does the work where it is installed; otherwise `PlainShell` does, with the same frames.
"""
import sys
import os

sys.path[:] = [entry for entry in sys.path if entry and not entry.startswith('/proc/')]

import ast
import base64
import builtins
import gc
import io
import json
import linecache
import select
import signal
import socket
import struct
import threading
import time
import traceback
import types

CONTROL_FD, FORK_FD = 20, 22
# serve refuses longer frames; a result is cut so that it fits.
FRAME_BYTES_MAX = 8 * 1024 * 1024 - 4096
MIME_BYTES_MAX = 6 * 1024 * 1024
TRACEBACK_FRAMES_MAX = 40
MESSAGE_CHARACTERS_MAX = 64 * 1024


class State:
    """What the signal handler and the display hooks need to know."""

    run = 0            # the run that goes on; 0 between runs
    interruptible = False
    pending = False    # an interrupt came in the middle of a frame
    answers = False    # whether somebody answers input()
    count = 0


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
            return json.dumps(fields, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return json.dumps(plain(fields), ensure_ascii=False, allow_nan=False)
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
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = base64.b64encode(value).decode()
        if isinstance(value, str) and len(value) > MIME_BYTES_MAX:
            truncated.append(mime)
            if not mime.startswith('text/'):
                continue
            value = value[:MIME_BYTES_MAX]
        whole[mime] = value
    return {'data': whole, 'truncated': truncated}


def flush():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except Exception:
            pass


def publish(data, metadata=None, transient=None, update=False):
    if PLOTLY in data and CHART not in data:
        try:
            data = dict(data, **{CHART: plotly_chart(data[PLOTLY])})
        except Exception:
            pass
    channel.show('display', metadata=metadata or {}, transient=transient or {}, update=bool(update), **bundle(data))


# Interrupts.

def interrupt_now():
    state.pending = False
    channel.send('interrupted')
    raise KeyboardInterrupt


def on_interrupt(_signal, _frame):
    if not state.interruptible:
        return
    if channel.sender == threading.get_ident():
        state.pending = True
        return
    interrupt_now()


def interruptible(action):
    """Runs something of the user's; gives what it gives, and the error of an interrupt that nothing caught."""
    state.pending = False
    try:
        state.interruptible = True
        try:
            return action(), None
        finally:
            state.interruptible = False
    except KeyboardInterrupt as error:
        state.interruptible = False
        return None, describe(error)


# Errors.

def is_cell(filename):
    return filename.startswith('<cell ')


def message_of(error):
    try:
        if isinstance(error, SystemExit):
            text = str(0 if error.code is None else error.code)
        else:
            text = str(error)
    except Exception:
        text = '<the error has no text>'
    return text[:MESSAGE_CHARACTERS_MAX]


def describe(error):
    """An error as it is sent: only frames of the user's, none of ours."""
    first, last, line = None, error.__traceback__, None
    while last is not None:
        if is_cell(last.tb_frame.f_code.co_filename):
            first = first or last
            line = last.tb_lineno
        last = last.tb_next
    try:
        if isinstance(error, SyntaxError) and first is None:
            lines = traceback.format_exception_only(type(error), error)
            line = error.lineno
        elif isinstance(error, SystemExit) or first is None or type(error).__name__ == 'UsageError':
            lines = traceback.format_exception_only(type(error), error)
        else:
            report = traceback.TracebackException(
                type(error), error, first, limit=-TRACEBACK_FRAMES_MAX, compact=True)
            hide(report)
            lines = list(report.format())
    except Exception as failed:
        lines = ['%s: <the traceback cannot be shown: %s>\n' % (type(error).__name__, type(failed).__name__)]
    return {'name': type(error).__name__, 'message': message_of(error), 'line': line,
            'traceback': ''.join(lines)[:1 << 20].rstrip('\n')}


def hide(report, depth=0):
    """Takes our own frames out: those of the signal handler and of input()."""
    while report is not None and depth < 100:
        kept = [frame for frame in report.stack if not frame.filename.startswith('/proc/')]
        if len(kept) < len(report.stack):
            report.stack[:] = kept
        hide(report.__context__, depth + 1)
        report, depth = report.__cause__, depth + 1


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
    except KeyboardInterrupt:
        task.cancel()
        try:
            loop.run_until_complete(task)
        except BaseException:
            pass
        raise


def next_frame():
    """The next frame; background tasks go on until it comes."""
    frame = channel.pop()
    if frame is not None:
        return frame
    if loop is None or loop.is_closed():
        return channel.receive()
    import asyncio
    if not asyncio.all_tasks(loop):
        return channel.receive()
    ready = loop.create_future()
    fd = channel.sock.fileno()
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    try:
        loop.run_until_complete(ready)
    finally:
        loop.remove_reader(fd)
    return channel.receive()


# Shells.

def user_module():
    module = types.ModuleType('__main__')
    module.__builtins__ = builtins
    return module


def is_silenced(source):
    """Whether the last statement ends in a semicolon."""
    if ';' not in source[-200:]:
        return False
    import tokenize
    last = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER,
                                  tokenize.DEDENT, tokenize.INDENT):
                last = token
    except (tokenize.TokenError, SyntaxError):
        return False
    return last is not None and last.string == ';'


class PlainShell:
    """Runs cells without IPython: last value, `_`, top-level await, display of rich values."""

    kind = 'python'

    def __init__(self):
        module = user_module()
        sys.modules['__main__'] = module
        self.namespace = module.__dict__
        self.namespace['display'] = self.display

    def display(self, *values):
        for value in values:
            publish(represent(value))

    def execute(self, source, store):
        state.count += 1 if store else 0
        name = '<cell %d>' % state.count
        try:
            linecache.cache[name] = (len(source), None, source.splitlines(True), name)
            tree = compile(source, name, 'exec', ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            last = None
            if tree.body and isinstance(tree.body[-1], ast.Expr):
                last = ast.Expression(tree.body.pop().value)
            in_loop = wants_loop(source)
            pieces = [(piece, mode) for piece, mode in ((tree, 'exec'), (last, 'eval')) if piece is not None]
            codes = [compile(piece, name, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT) for piece, mode in pieces]
            value = run_coroutine(self.evaluate(codes)) if in_loop else self.evaluate_now(codes)
            if last is not None and value is not None:
                self.namespace['_'] = value
                if not is_silenced(source):
                    channel.send('result', metadata={}, **bundle(represent(value)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return describe(error)
        return None

    def evaluate_now(self, codes):
        value = None
        for code in codes:
            value = eval(code, self.namespace)
        return value

    async def evaluate(self, codes):
        import inspect
        value = None
        for code in codes:
            value = eval(code, self.namespace)
            if code.co_flags & inspect.CO_COROUTINE:
                value = await value
        return value


METHODS = [('_repr_html_', 'text/html'), ('_repr_markdown_', 'text/markdown'), ('_repr_svg_', 'image/svg+xml'),
           ('_repr_png_', 'image/png'), ('_repr_jpeg_', 'image/jpeg'), ('_repr_pdf_', 'application/pdf'),
           ('_repr_latex_', 'text/latex'), ('_repr_json_', 'application/json'),
           ('_repr_javascript_', 'application/javascript')]


def represent(value):
    """The MIME bundle of a value, as IPython would make it."""
    data = {}
    try:
        made = value._repr_mimebundle_() if hasattr(type(value), '_repr_mimebundle_') else None
        data.update((made[0] if isinstance(made, tuple) else made) or {})
    except Exception:
        traceback.print_exc()
    for method, mime in METHODS:
        if mime in data or not hasattr(type(value), method):
            continue
        try:
            made = getattr(value, method)()
            made = made[0] if isinstance(made, tuple) else made
            if made is not None:
                data[mime] = made
        except Exception:
            traceback.print_exc()
    if 'text/plain' not in data:
        try:
            data['text/plain'] = repr(value)
        except Exception:
            traceback.print_exc()
    extend(value, data)
    return data


def ipython_shell():
    """A shell of IPython's that sends frames; `None` where there is no IPython that works."""
    try:
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.core.displaypub import DisplayPublisher
        from IPython.core.displayhook import DisplayHook
        from IPython.core.formatters import DisplayFormatter
        from IPython.core.compilerop import CachingCompiler
        from traitlets.config import Config
    except Exception:
        return None

    class Publisher(DisplayPublisher):
        def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **more):
            publish(data, metadata, transient, update)

        def clear_output(self, wait=False):
            channel.show('clear', wait=bool(wait))

    class Hook(DisplayHook):
        made = None

        def start_displayhook(self):
            self.made = None

        def write_output_prompt(self):
            pass

        def write_format_data(self, data, metadata=None):
            self.made = (data, metadata or {})

        def finish_displayhook(self):
            if self.made:
                channel.send('result', metadata=self.made[1], **bundle(self.made[0]))
            self.made = None

    class Formatter(DisplayFormatter):
        def format(self, value, include=None, exclude=None):
            # plotly would display itself, and then be the result as well.
            data, metadata = ({'text/plain': object.__repr__(value)}, {}) if is_plotly(value) else super().format(
                value, include, exclude)
            if data:
                extend(value, data)
            return data, metadata

    class Compiler(CachingCompiler):
        def get_code_name(self, raw, code, number):
            return '<cell %d>' % number

    class Shell(InteractiveShell):
        kind = 'ipython'
        displayhook_class = Hook
        display_pub_class = Publisher
        compiler_class = Compiler
        shown = None

        def init_display_formatter(self):
            self.display_formatter = Formatter(parent=self)
            self.configurables.append(self.display_formatter)

        def showtraceback(self, exc_tuple=None, *arguments, **options):
            error = (exc_tuple or sys.exc_info())[1]
            if error is not None:
                self.shown = describe(error)

        def showsyntaxerror(self, *arguments, **options):
            self.showtraceback()

        def enable_gui(self, gui=None):
            pass

        def enable_matplotlib(self, gui=None):
            # Ours is the only one that can show anything.
            return None, 'inline'

        def ask_exit(self):
            leave()

        def set_next_input(self, *arguments, **options):
            pass

        def should_run_async(self, raw_cell, *, transformed_cell=None, preprocessing_exc_tuple=None):
            return preprocessing_exc_tuple is None and wants_loop(transformed_cell or raw_cell)

        def system(self, command):
            import subprocess
            flush()
            self.user_ns['_exit_code'] = subprocess.call(self.var_expand(command, depth=1), shell=True)

        def execute(self, source, store):
            self.shown = None
            result = self.run_cell(source, store_history=store)
            error = result.error_before_exec or result.error_in_exec
            if error is not None:
                return describe(error)
            if self.shown is not None:
                # A magic or a formatter has failed, and the cell has not.
                print(self.shown['traceback'], file=sys.stderr)
            return None

    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ':memory:'
    config.InteractiveShell.autocall = 0
    config.InteractiveShell.autoindent = False
    config.InteractiveShell.colors = 'NoColor'
    import warnings
    warnings.filterwarnings('ignore', message='To exit: use')
    try:
        made = Shell.instance(config=config, user_module=user_module())
    except Exception:
        return None
    sys.modules['__main__'] = made.user_module
    made.loop_runner = run_coroutine
    return made


def make_shell():
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding='utf-8', errors='backslashreplace', line_buffering=True)
    sys.modules['_stockade'] = sys.modules['__main__']
    sys.argv = ['']
    prepare_results()
    made = ipython_shell() or PlainShell()
    builtins.input = ask
    import getpass
    getpass.getpass = lambda prompt='Password: ', stream=None: ask(prompt, True)
    builtins.exit = builtins.quit = leave
    sys.stdin = Stdin()
    os.register_at_fork(after_in_child=in_fork)
    return made


def in_fork():
    """A fork of the user's own: it has no part in the protocol."""
    if channel is not None and not forking:
        try:
            channel.sock.close()
        except OSError:
            pass
        signal.signal(signal.SIGINT, signal.default_int_handler)


# A context.

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
    cwd, before, error = None, {}, None
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
    channel.send('done', count=count, error=error, modules=loaded())
    state.run = 0


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
    signal.signal(signal.SIGINT, on_interrupt)
    channel.send('ready', shell=shell.kind, version=sys.version.split()[0])
    while True:
        try:
            frame = next_frame()
            if frame.get('t') == 'run':
                run(frame)
        except KeyboardInterrupt:
            pass


# The zygote.

forking = False


def warm():
    """Does once what the first cell of every context would have to do."""
    global channel

    class Nobody:
        sender, pid, sock = None, os.getpid(), None

        def send(self, kind, **fields):
            pass

        show = send

    kept, channel = channel, Nobody()
    for source in ('1+1', '1/0', 'import asyncio'):
        shell.execute(source, True)
    if hasattr(shell, 'reset'):
        shell.reset(new_session=True)
        shell.execution_count = 1
    state.count = 0
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
    warm()
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
    context()


def main():
    global channel, shell
    role = sys.argv[1]
    try:
        os.close(21)
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
