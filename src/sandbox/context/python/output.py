# C code has a buffer of its own, and nobody else would empty it before that is full. Not all streams, as fflush(NULL)
# would: one that a thread waits in is locked.

c_library = c_stdout = None


def find_c():
    global c_library, c_stdout
    try:
        import ctypes
        c_library = ctypes.CDLL(None)
        c_stdout = ctypes.c_void_p.in_dll(c_library, 'stdout')
        c_library.setvbuf(c_stdout, None, 1, 0)
    except Exception:
        # Not every Python has ctypes, and not every C library names it so.
        c_library = None


def flush_c():
    if c_library is not None:
        c_library.fflush(c_stdout)


# Whose output it is. Threads and tasks keep the number of the run that has started them, and what they write to Python's
# streams later goes to serve in frames with that number; whatever writes to the descriptors has only those.

origin = contextvars.ContextVar('stockade_run', default=0)


def run_of_this():
    return origin.get() or state.run


class Output(io.TextIOWrapper):
    """Standard output or error."""

    def __init__(self, fd):
        raw = io.FileIO(fd, 'w', closefd=False)
        raw.name = ('<stdin>', '<stdout>', '<stderr>')[fd]
        super().__init__(io.BufferedWriter(raw), encoding='utf-8', errors='backslashreplace', line_buffering=True)
        self.stream, self.mode = fd, 'w'
        # What others than the run that goes on have written of their lines, by run and thread.
        self.lines = {}

    def write(self, text):
        run = origin.get()
        # While no run is on serve may have begun the next one, whose it would be in the pipes.
        own = run in (0, state.run) if state.run else not state.serves
        if own or not isinstance(text, str) or os.getpid() != channel.pid:
            return super().write(text)
        whose = run, threading.get_ident()
        line = self.lines.pop(whose, '') + text
        # Between runs at once: later it would be in the middle of the next one's.
        if not state.run or '\n' in text or len(line) > LINE_CHARACTERS_MAX:
            self.tell(run, line)
        else:
            self.lines[whose] = line
        return len(text)

    def tell(self, run, text):
        for at in range(0, len(text), OUTPUT_CHARACTERS_MAX):
            channel.send('output', run=run, stream=self.stream, text=text[at:at + OUTPUT_CHARACTERS_MAX])

    def flush(self):
        super().flush()
        while self.lines and channel is not None and os.getpid() == channel.pid:
            try:
                (run, _), line = self.lines.popitem()
            except KeyError:
                # Another thread was faster.
                break
            self.tell(run, line)

    def writelines(self, lines):
        for line in lines:
            self.write(line)


def keep_origins():
    """Threads begin in the context of whoever starts them, and work that is given to others in that of whoever gives."""
    begin = threading.Thread.start

    def start(self):
        if not hasattr(self, '_stockade_run'):
            self._stockade_run = run_of_this()
        begin(self)

    inner = threading.Thread._bootstrap_inner

    def bootstrap_inner(self):
        origin.set(getattr(self, '_stockade_run', 0))
        inner(self)

    threading.Thread.start, threading.Thread._bootstrap_inner = start, bootstrap_inner


def keep_origins_of_work(module):
    """A pool's threads are whoever's work they do."""
    item = module._WorkItem
    make, do = item.__init__, item.run

    def __init__(self, *arguments, **named):
        make(self, *arguments, **named)
        self._stockade_run = run_of_this()

    def run(self):
        origin.set(self._stockade_run)
        return do(self)

    item.__init__, item.run = __init__, run


def keep_no_origin_of_workers(module):
    """Threads of a pool of multiprocessing's do the work of whoever gives it, which they cannot be told."""
    make = module.DummyProcess.__init__

    def __init__(self, *arguments, **named):
        make(self, *arguments, **named)
        self._stockade_run = 0

    module.DummyProcess.__init__ = __init__


