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

    def represent(self, value):
        """The MIME bundle of a value, and what is said about it."""
        return represent(value), {}

    def execute(self, source, store):
        state.count += 1 if store else 0
        name = '<cell %d>' % state.count
        try:
            linecache.cache[name] = (len(source), None, (source + '\n').splitlines(True), name)
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
                data = {} if is_silenced(source) else once(represent(value))
                if data:
                    channel.send('result', metadata={}, **bundle(data))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            keep_last(error)
            say_farewell(error)
            shown = describe(error)
            if isinstance(error, SyntaxError) and (error.text or '').lstrip()[:1] in ('%', '!'):
                shown['message'] += ': magics and `!` need IPython, which the images `python` and `full` have'
                shown['traceback'] += '\nmagics and `!` need IPython, which the images `python` and `full` have'
            return shown
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


def keep_last(error):
    """As Python's own REPL does, for `pdb.pm()`, `%debug` and `%tb`; without our frames."""
    if isinstance(error, SystemExit):
        return
    place = error.__traceback__
    while place is not None and not is_cell(place.tb_frame.f_code.co_filename):
        place = place.tb_next
    sys.last_type, sys.last_value = type(error), error
    sys.last_traceback = place or error.__traceback__
    if sys.version_info >= (3, 12):
        sys.last_exc = error


METHODS = [('_repr_html_', 'text/html'), ('_repr_markdown_', 'text/markdown'), ('_repr_svg_', 'image/svg+xml'),
           ('_repr_png_', 'image/png'), ('_repr_jpeg_', 'image/jpeg'), ('_repr_pdf_', 'application/pdf'),
           ('_repr_latex_', 'text/latex'), ('_repr_json_', 'application/json'),
           ('_repr_javascript_', 'application/javascript')]


def represent(value):
    """The MIME bundle of a value, as IPython would make it."""
    with all_rows(value):
        return represented(value)


def represented(value):
    data = {}
    try:
        made = value._repr_mimebundle_() if hasattr(type(value), '_repr_mimebundle_') else None
        data.update((made[0] if isinstance(made, tuple) else made) or {})
    except Exception as error:
        tell(error)
    for method, mime in METHODS:
        if mime in data or not hasattr(type(value), method):
            continue
        try:
            made = getattr(value, method)()
            made = made[0] if isinstance(made, tuple) else made
            if made is not None:
                data[mime] = made
        except Exception as error:
            tell(error)
    if 'text/plain' not in data:
        try:
            data['text/plain'] = repr(value)
        except Exception as error:
            tell(error)
    extend(value, data)
    return data


def ipython_shell():
    """A shell of IPython's that sends frames; `None` where there is no IPython that works."""
    try:
        from IPython.core.autocall import ExitAutocall
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.core.displaypub import DisplayPublisher
        from IPython.core.displayhook import DisplayHook
        from IPython.core.formatters import DisplayFormatter
        from IPython.core.compilerop import CachingCompiler
        from traitlets.config import Config
        hear_in_scripts()
        count_lines_in_magics()
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
            self.made = (once(data), metadata or {})

        def finish_displayhook(self):
            if self.made:
                channel.send('result', metadata=self.made[1], **bundle(self.made[0]))
            self.made = None

    class Formatter(DisplayFormatter):
        def format(self, value, include=None, exclude=None):
            with all_rows(value):
                # plotly would display itself, and then be the result as well.
                data, metadata = ({'text/plain': object.__repr__(value)}, {}) if is_plotly(value) else super().format(
                    value, include, exclude)
                if data:
                    extend(value, data)
            return data, metadata

    class Compiler(CachingCompiler):
        name = None

        def get_code_name(self, raw, code, number):
            self.name = '<cell %d>' % number
            return self.name

        def cache(self, transformed_code, number=0, raw_code=None):
            name = super().cache(transformed_code, number, raw_code)
            if raw_code and is_cell_magic(transformed_code):
                # All of it is one call there.
                linecache.cache[name] = (len(raw_code), None, (raw_code + '\n').splitlines(True), name)
            return name

        def __call__(self, source, filename, symbol, *arguments, **options):
            # `%%time` has a name of its own for the rest of the cell.
            filename = self.name if self.name and filename.startswith('<timed ') else filename
            return super().__call__(source, filename, symbol, *arguments, **options)

    class Exit(ExitAutocall):
        def __call__(self, code=0):
            leave(code)

    class Shell(InteractiveShell):
        kind = 'ipython'
        displayhook_class = Hook
        display_pub_class = Publisher
        compiler_class = Compiler
        shown, lines_before = None, 0

        def init_user_ns(self):
            super().init_user_ns()
            # Programs have one, which multiprocessing asks for; `%reset` takes it away.
            self.user_module.__spec__ = None
            self.user_ns['exit'] = self.user_ns['quit'] = Exit()

        def transform_cell(self, raw_cell):
            made = super().transform_cell(raw_cell)
            blank = sum(1 for _ in itertools.takewhile(str.isspace, raw_cell.splitlines(True)))
            self.lines_before = blank + 1 if is_cell_magic(made) else 0
            # IPython takes the first lines away when they are empty, and those after them have their numbers.
            return '\n' * blank + made

        def init_display_formatter(self):
            self.display_formatter = Formatter(parent=self)
            self.configurables.append(self.display_formatter)

        def showtraceback(self, exc_tuple=None, *arguments, **options):
            error = (exc_tuple or sys.exc_info())[1]
            if error is not None:
                keep_last(error)
                self.shown = describe(error)
            elif getattr(sys, 'last_value', None) is not None:
                # `%tb`
                print(describe(sys.last_value)['traceback'])
            else:
                print('No traceback available to show.', file=sys.stderr)

        @property
        def traceback_mode(self):
            """That of `%xmode`. `Context` is where IPython begins: then errors are as Python shows them."""
            return self.InteractiveTB.mode

        def verbose(self, error, place):
            with machinery_hidden(error):
                made = self.InteractiveTB.structured_traceback(type(error), error, shown_frames(place), tb_offset=0)
            return self.InteractiveTB.stb2text(made)

        def showsyntaxerror(self, *arguments, **options):
            self.showtraceback()

        def _format_exception_for_storage(self, exception, *arguments, **options):
            # IPython's own way takes seconds for a recursion that has no end.
            error = describe(exception)
            return {'ename': error['name'], 'evalue': error['message'], 'traceback': error['traceback'].split('\n')}

        def enable_gui(self, gui=None):
            pass

        def enable_matplotlib(self, gui=None):
            # Ours is the only one that can show anything, whatever the code has taken since.
            matplotlib = sys.modules.get('matplotlib')
            if matplotlib is not None and matplotlib.get_backend() != BACKEND:
                matplotlib.use(BACKEND)
            return None, 'inline'

        def represent(self, value):
            return self.display_formatter.format(value)

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

        def getoutput(self, command, split=True, depth=0):
            # So many frames more are between the original and the variables of the cell.
            return unswallowed(lambda: InteractiveShell.getoutput(self, command, split, depth + 3))

        def execute(self, source, store):
            self.shown = None
            result = self.run_cell(source, store_history=store)
            error = result.error_before_exec or result.error_in_exec
            if error is not None:
                keep_last(error)
                say_farewell(error)
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
    warnings.filterwarnings('ignore', message='IPython (parent|dir) .* is not a writable location')
    try:
        made = Shell.instance(config=config, user_module=user_module())
    except Exception:
        return None
    if 'IPYTHONDIR' not in os.environ and drop_directory(made.ipython_dir, 'tmp'):
        # Where `%cd` and `%bookmark` keep what they know.
        made.db = {}
    sys.modules['__main__'] = made.user_module
    remember_cells(made.history_manager)
    made.loop_runner = run_coroutine
    configure_figures(made)
    return made


def hear_in_scripts():
    """`%%bash` and its like end their program when they are interrupted, and then give what that has given."""
    from IPython.core.magics.script import ScriptMagics
    original = ScriptMagics.shebang

    @functools.wraps(original)
    def shebang(self, line, cell):
        return unswallowed(lambda: original(self, line, cell))

    ScriptMagics.shebang = shebang


def remember_cells(history):
    """`%history -l` and `-g` ask a data base, which has other sessions' cells as well; here is none, and one session."""
    def rows(raw, output):
        return list(history._get_range_session(1, None, raw, output))

    def get_tail(n=10, raw=True, output=False, include_latest=False):
        found = rows(raw, output)
        return (found if include_latest else found[:-1])[-n:] if n else []

    def search(pattern='*', raw=True, search_raw=True, output=False, n=None, unique=False):
        import fnmatch
        wanted = [line for _, line, source in rows(search_raw, False) if fnmatch.fnmatchcase(source, pattern)]
        found = [row for row in rows(raw, output) if row[1] in wanted]
        if unique:
            found = list({str(row[2]): row for row in found}.values())
        return found if n is None else found[-n:]

    history.get_tail, history.search = get_tail, search


def is_cell_magic(transformed):
    return transformed.lstrip().startswith('get_ipython().run_cell_magic(')


def count_lines_in_magics():
    """What a magic is given of a cell has no lines before it, by which errors would have their places."""
    from IPython.core.magics.execution import ExecutionMagics

    def counting(original):
        @functools.wraps(original)
        def magic(self, line='', cell=None, *arguments, **options):
            if cell and not cell.isspace():
                cell = '\n' * getattr(self.shell, 'lines_before', 0) + cell
            return original(self, line, cell, *arguments, **options)

        return magic

    for name in ('time', 'capture'):
        setattr(ExecutionMagics, name, counting(getattr(ExecutionMagics, name)))


def configure_figures(made):
    """`%config InlineBackend.figure_formats` and `set_matplotlib_formats` choose what figures are shown as."""
    try:
        from matplotlib_inline.config import InlineBackend
        backend = InlineBackend.instance(parent=made)
        backend.shell = made
        made.configurables.append(backend)
    except Exception:
        # Not in every image; then figures are PNG.
        pass


def make_shell():
    sys.stdout = sys.__stdout__ = Output(1)
    sys.stderr = sys.__stderr__ = Output(2)
    find_c()
    keep_origins()
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
    sys.unraisablehook = on_unraisable
    hear_in_handlers()
    os.system = functools.wraps(os.system)(system)
    return made


