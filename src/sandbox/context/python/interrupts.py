

# Interrupts.

def interrupt_now():
    state.pending = False
    state.interrupts += 1
    channel.send('interrupted')
    raise KeyboardInterrupt


def on_look(_signal, frame):
    """A run waits: what still has this thread is an earlier one's."""
    # Where the loop itself is, it is about to begin it.
    waits = frame is None or '/asyncio/' in frame.f_code.co_filename or frame.f_code.co_filename.endswith('selectors.py')
    if state.waiting and not state.run and not waits and channel.sender != threading.get_ident():
        raise KeyboardInterrupt


def on_interrupt(_signal, _frame):
    if not state.interruptible:
        return
    if state.held or channel.sender == threading.get_ident():
        state.pending = True
        return
    interrupt_now()


@contextlib.contextmanager
def held():
    state.held = True
    try:
        yield
    finally:
        state.held = False
        if state.pending and state.interruptible:
            interrupt_now()


def keeps_status(original, blocks):
    """A method that asks what a program has ended with, and keeps that in its object. The kernel tells it once: with an
    interrupt between the two it would be lost, and be taken for 0 by whoever asks again."""
    @functools.wraps(original)
    def method(self, *arguments, **named):
        if threading.current_thread() is not threading.main_thread() or os.getpid() != channel.pid:
            return original(self, *arguments, **named)
        if blocks(*arguments):
            try:
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                # Somebody else has asked; whoever called knows what that means.
                pass
        with held():
            made = original(self, *arguments, **named)
            if original.__name__ == '_try_wait' and made[0] == self.pid:
                self._handle_exitstatus(made[1])
            return made

    return method


def keep_statuses(module):
    kind = module.Popen
    kind._try_wait = keeps_status(kind._try_wait, lambda flags: not flags)
    kind._internal_poll = keeps_status(kind._internal_poll, lambda *_: False)


def keep_statuses_of_forks(module):
    module.Popen.poll = keeps_status(module.Popen.poll, lambda flags=os.WNOHANG: not flags)


class Heard:
    """A handler of the user's for SIGINT. serve is told of each call, or would send the signal again soon."""

    def __init__(self, handler):
        self.handler = handler

    def __call__(self, number, frame):
        if state.run and channel.sender != threading.get_ident():
            channel.send('interrupted')
        return self.handler(number, frame)


def hear_in_handlers():
    put, look = signal.signal, signal.getsignal
    users = lambda found: found.handler if isinstance(found, Heard) else found

    @functools.wraps(put)
    def put_heard(number, handler):
        # A fork of the user's own has nobody to tell.
        is_ours = handler is on_interrupt or os.getpid() != channel.pid
        is_users = number == signal.SIGINT and callable(handler) and not is_ours
        return users(put(number, Heard(handler) if is_users else handler))

    signal.signal = put_heard
    signal.getsignal = functools.wraps(look)(lambda number: users(look(number)))


def on_unraisable(unraisable):
    """Errors in `__del__` end nothing but that. An interrupt is for the code below it, and is raised when that goes on."""
    here = threading.current_thread() is threading.main_thread()
    if not (here and state.interruptible and isinstance(unraisable.exc_value, KeyboardInterrupt)):
        return sys.__unraisablehook__(unraisable)
    frame, before = sys._getframe(1), sys.gettrace()

    def raise_below(*_):
        frame.f_trace = None
        sys.settrace(before)
        if state.interruptible:
            interrupt_now()

    frame.f_trace = raise_below
    # Else nobody looks at that.
    sys.settrace(before or (lambda *_: None))


def unswallowed(action):
    """Does what makes something else of an interrupt, which ends the cell all the same."""
    before, made = state.interrupts, None
    try:
        made = action()
    except Exception:
        if state.interrupts == before:
            raise
    if state.interrupts != before:
        raise KeyboardInterrupt
    return made


def system(command):
    """As that of the C library, which would keep interrupts from this process for as long as the command runs."""
    import subprocess
    sys.audit('os.system', os.fsencode(command))
    flush()
    try:
        status = subprocess.call(os.fsdecode(command), shell=True, close_fds=False, restore_signals=False)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None
    except OSError:
        # What the C library says when there is no shell.
        status = 127
    return -status if status < 0 else status << 8


def interruptible(action):
    """Runs something of the user's; gives what it gives, and the error that nothing caught, as that of an interrupt."""
    state.pending = False
    try:
        state.interruptible = True
        try:
            return action(), None
        finally:
            state.interruptible = False
    except BaseException as error:
        # Or one that is raised where none is expected: `sys.exit` in what makes the text of a value.
        state.interruptible = False
        return None, describe(error)


# Errors.

def is_cell(filename):
    return filename.startswith('<cell ')


def message_of(error):
    try:
        if isinstance(error, SystemExit):
            text = str(0 if code_of(error) is None else code_of(error))
        else:
            text = str(error)
        return str(text[:MESSAGE_CHARACTERS_MAX])
    except KeyboardInterrupt:
        raise
    except BaseException:
        return '<the error has no text>'


def name_of(error):
    """The name of its class, whatever that says itself."""
    return str(type.__dict__['__name__'].__get__(type(error)))


def line_of(number):
    """A line as a frame can carry it: code can make an error of any."""
    return number if type(number) is int and 0 <= number < 1 << 63 else None


def describe(error):
    """An error as it is sent: only frames of the user's, none of ours."""
    first, last, line = None, error.__traceback__, None
    while last is not None:
        if is_cell(last.tb_frame.f_code.co_filename):
            first = first or last
            line = last.tb_lineno
        last = last.tb_next
    if isinstance(error, SyntaxError) and first is None:
        line = error.lineno
    try:
        lines = lines_of(error, first)
    except KeyboardInterrupt:
        raise
    except BaseException as failed:
        lines = ['%s: <the traceback cannot be shown: %s>\n' % (name_of(error), name_of(failed))]
    made = {'name': name_of(error), 'message': message_of(error), 'line': line_of(line),
            'traceback': ''.join(lines)[:1 << 20].rstrip('\n')}
    if isinstance(error, SystemExit):
        made['exit'] = exit_code(error)
    return made


def exit_code(error):
    """What a program would end with by this."""
    code = code_of(error)
    if not isinstance(code, int):
        return 0 if code is None else 1
    code = int.__index__(code)
    # Python takes what C has no number for as -1.
    return code & 0xff if -1 << 63 <= code < 1 << 63 else 0xff


def code_of(error):
    """What was given to `sys.exit`. Python takes an error that does not tell for a message."""
    try:
        return error.code
    except Exception:
        return error


def say_farewell(error):
    """What is no number is a message to a person, as where Python itself ends by it."""
    if isinstance(error, SystemExit) and code_of(error) is not None and not isinstance(code_of(error), int):
        print(message_of(error), file=sys.stderr)


def lines_of(error, first):
    """What is shown of an error, whose first frame in a cell this is."""
    mode = getattr(shell, 'traceback_mode', None)
    is_only = isinstance(error, SystemExit) or type(error).__name__ == 'UsageError' or mode == 'Minimal'
    if not is_only and not (isinstance(error, SyntaxError) and first is None):
        report = traceback.TracebackException(
            type(error), error, first or error.__traceback__, limit=-TRACEBACK_FRAMES_MAX, compact=True)
        hide(report)
        if report.stack or first is not None:
            return shell.verbose(error, first or error.__traceback__) if mode == 'Verbose' else list(report.format())
    return traceback.format_exception_only(type(error), error)


def is_machinery(filename):
    """Whether a frame is no work of the user's: the signal handler, input(), what IPython puts around a cell."""
    files = [getattr(sys.modules.get(name), '__file__', None) for name in ('IPython', 'traitlets')]
    return filename == '<stockade>' or any(filename.startswith(os.path.dirname(file) + os.sep) for file in files if file)


def hide(report, depth=0):
    """Takes the frames out that are not the user's."""
    while report is not None and depth < 100:
        kept = []
        for frame in report.stack:
            if not is_machinery(frame.filename):
                kept.append(frame)
            elif frame.name == 'raise_below' and kept:
                # The frame that was looked at is there twice.
                kept.pop()
        if len(kept) < len(report.stack):
            report.stack[:] = kept
        hide(report.__context__, depth + 1)
        report, depth = report.__cause__, depth + 1


def shown_frames(place):
    """A traceback without the frames that are not the user's."""
    kept = []
    while place is not None:
        code = place.tb_frame.f_code
        if not is_machinery(code.co_filename):
            kept.append(place)
        elif code.co_name == 'raise_below' and kept:
            # As above.
            kept.pop()
        place = place.tb_next
    made = None
    for one in reversed(kept):
        made = types.TracebackType(made, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return made


@contextlib.contextmanager
def machinery_hidden(error):
    """Has an error, and those that it came of, show only frames of the user's meanwhile."""
    found = []
    waiting = [error]
    while waiting and len(found) < 100:
        one = waiting.pop()
        if one is not None and not any(one is other for other, _ in found):
            found.append((one, one.__traceback__))
            waiting += [one.__context__, one.__cause__]
    try:
        for one, place in found:
            one.__traceback__ = shown_frames(place)
        yield
    finally:
        for one, place in found:
            one.__traceback__ = place


def tell(error):
    """An error that is not the cell's failure."""
    print(describe(error)['traceback'], file=sys.stderr)
