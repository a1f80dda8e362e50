//! Python with IPython and the libraries of the image `python`: magics, tables, charts, notebooks.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::python::{plain_values, semantics};
use super::{code, create, events_until, start, text, works};
use crate::harness::{Daemon, id, skip};

const FRAME: &str = "application/vnd.stockade.dataframe+json";
pub(super) const CHART: &str = "application/vnd.stockade.chart+json";

/// A sandbox of one of our own images, if it was built.
pub(crate) fn of_image(daemon: &Daemon, image: &str) -> Option<String> {
    let layout = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/images").join(image);
    if !layout.join("index.json").exists() {
        return None;
    }
    let output = daemon.cli(&["import", layout.to_str().unwrap(), "--reference", image]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(id(&daemon.create(json!({"image": image}))))
}

/// The elements of the one chart of a cell.
#[track_caller]
fn chart(daemon: &Daemon, sandbox: &str, cell: &str) -> Value {
    let result = code(daemon, sandbox, "python", cell);
    assert_eq!(result["error"], Value::Null, "{cell}: {result}");
    let shown = result["results"].as_array().unwrap();
    assert_eq!(shown.len(), 1, "{cell}: shown {} times", shown.len());
    let data = &shown[0]["data"];
    if let Some(png) = data["image/png"].as_str() {
        let png = BASE64.decode(png.trim()).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 1000, "{cell}");
    }
    data[CHART].clone()
}

#[test]
fn python_with_its_libraries_is_a_notebook() {
    let daemon = Daemon::start();
    let Some(name) = of_image(&daemon, "python") else {
        skip!("built-image", "target/images/python is not there");
    };
    image(&daemon, &name);
    let answer = super::try_code(&daemon, &name, "typescript", &json!({"code": "1"}));
    let error = crate::harness::assert_error(&answer, 422, "LANGUAGE_NOT_IN_IMAGE");
    assert!(error["hint"].as_str().unwrap().contains("`node`"), "{error}");
    semantics(&daemon, &name);
    plain_values(&daemon, &name);
    magics(&daemon, &name);
    places_of_errors(&daemon, &name);
    post_mortem(&daemon, &name);
    tables(&daemon, &name);
    exact_tables(&daemon, &name);
    charts(&daemon, &name);
    other_charts(&daemon, &name);
    every_type(&daemon, &name);
    whole_notebooks(&daemon, &name);
    // A context that is forked after all that has the libraries already, and none of the state.
    let context = create(&daemon, &name, &json!({}));
    let result = code(
        &daemon,
        &name,
        &context,
        "import sys; ['pandas' in sys.modules, 'pd' in globals(), 'plt' in globals()]",
    );
    assert!(text(&result).unwrap().ends_with("False, False]"), "{result}");
    works(&daemon, &name, &context);
}

/// What is imported is compiled already, what nobody needs is not there, and the fonts are listed.
fn image(daemon: &Daemon, name: &str) {
    let sources = "cd /usr/local/lib/python3.11/dist-packages && for f in $(find . -name '*.py'); do d=${f%/*} b=${f##*/}; \
                   [ -e $d/__pycache__/${b%.py}.cpython-311.pyc ] || echo $f; done | grep -v '^./[^/]*/_vendor' | head -5";
    assert_eq!(daemon.shell(name, sources), "", "sources that are not compiled");
    let tests = "find /usr/local/lib/python3.11/dist-packages -type d -name tests | head -5";
    assert_eq!(daemon.shell(name, tests), "");
    let fonts = daemon.shell(name, "grep -c DejaVuSans.ttf /root/.cache/matplotlib/fontlist-*.json");
    assert_ne!(fonts, "0\n");
}

fn magics(daemon: &Daemon, name: &str) {
    for (cell, stdout) in [
        ("!echo hi $((1+2))", "hi 3\n"),
        ("%%bash\necho from bash", "from bash\n"),
        ("x = !echo a; echo b\nprint(x[0])", "a\n"),
        ("%env FOO=1\n!echo $FOO", "env: FOO=1\n1\n"),
    ] {
        let result = code(daemon, name, "python", cell);
        assert_eq!((&result["stdout"], &result["error"]), (&json!(stdout), &Value::Null), "{cell}: {result}");
    }
    let result = code(daemon, name, "python", "%timeit -n1 -r1 1");
    assert!(result["stdout"].as_str().unwrap().contains("per loop"), "{result}");
    let result = code(daemon, name, "python", "%nosuchmagic");
    assert_eq!(result["error"]["name"], "UsageError", "{result}");
    let cell = "from IPython.display import *\ndisplay(HTML('<b>x</b>')); print('mid'); \
                display(Markdown('**m**'), Latex('$x$')); JSON({'a': 1})";
    // In the order in which it was shown and printed.
    let mut connection = start(daemon, name, "python", &json!({"code": cell}));
    let events: Vec<(String, Value)> = events_until(&mut connection, "end", |_| ())
        .iter()
        .map(|event| (event.name.clone(), super::data(event)["data"].clone()))
        .collect();
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["started", "display", "stdout", "display", "display", "result", "end"], "{events:?}");
    let data: Vec<&Value> = events.iter().map(|(_, data)| data).collect();
    assert_eq!((&data[1]["text/html"], data[2]), (&json!("<b>x</b>"), &json!("mid\n")));
    assert_eq!((&data[3]["text/markdown"], &data[4]["text/latex"]), (&json!("**m**"), &json!("$x$")));
    assert_eq!(data[5]["application/json"], json!({"a": 1}));
    let result = code(daemon, name, "python", "display({'text/html': 5}, raw=True); {1: 1, '1': [2]}");
    assert_eq!(result["results"][0]["data"], json!({"text/html": "5"}), "{result}");
    let value = result["results"][1]["data"].as_object().unwrap();
    assert!(value.len() == 1 && value["text/plain"] == "{1: 1, '1': [2]}", "{result}");
    let result = code(daemon, name, "python", "h = display('a', display_id=True); h.update('b')");
    assert_eq!(result["results"].as_array().unwrap().len(), 1, "{result}");
    assert_eq!(result["results"][0]["data"]["text/plain"], "'b'", "{result}");
    let result = code(daemon, name, "python", "display(1); clear_output(); display(2)");
    assert_eq!(result["results"].as_array().unwrap().len(), 1, "{result}");
    // What was printed before goes as well, at the next that is printed or shown where it is to wait for that.
    for (cell, stdout) in [
        ("print('a'); clear_output(); print('b')", "b\n"),
        ("for i in range(3): clear_output(wait=True); print(i)", "2\n"),
        ("print('a'); clear_output(wait=True)", "a\n"),
        ("print('a'); clear_output(wait=True); display(1)", ""),
    ] {
        let result = code(daemon, name, "python", cell);
        assert_eq!(
            (&result["stdout"], &result["truncated"]["stdout"]),
            (&json!(stdout), &json!(false)),
            "{cell}: {result}"
        );
    }
    // Programs have a `__spec__`, which these ask for.
    for method in ["spawn", "forkserver"] {
        let cell = format!(
            "import multiprocessing\nwith multiprocessing.get_context('{method}').Pool(1) as pool: made = pool.map(abs, [-1])\nmade"
        );
        let result = code(daemon, name, "python", &cell);
        assert_eq!(text(&result), Some("[1]"), "{method}: {result}");
    }
    let result = code(daemon, name, "python", "import PIL.Image; PIL.Image.new('RGB', (4, 4), 'red')");
    assert!(result["results"][0]["data"]["image/png"].is_string(), "{result}");
}

/// Errors have the lines of the cell, whatever IPython makes of it.
fn places_of_errors(daemon: &Daemon, name: &str) {
    for (cell, line) in [
        ("\n\n1/0", 3),
        ("%%time\nx = 1\n1/0", 3),
        ("\n%%time\nx = 1\n\n1/0", 5),
        ("\n  x = 1\n  1/0", 3),
        ("!true\n1/0", 2),
        ("\n\nx y", 3),
    ] {
        let result = code(daemon, name, "python", cell);
        let error = &result["error"];
        assert_eq!(error["line"], line, "{cell}: {result}");
        let place = format!("line {line}");
        assert!(error["traceback"].to_string().contains(&place), "{cell}: {result}");
    }
    let result = code(daemon, name, "python", "\n%%time\ndef fails():\n  return 1/0");
    assert_eq!(result["error"], Value::Null, "{result}");
    let result = code(daemon, name, "python", "fails()");
    let lines: Vec<&str> =
        result["error"]["traceback"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let traceback = lines.join("\n");
    assert!(traceback.contains("line 4, in fails\n    return 1/0\n           ~^~\n"), "{traceback}");
    let result = code(daemon, name, "python", "%%capture made\n%%time\nprint('in')");
    assert_eq!((&result["stdout"], &result["error"]), (&json!(""), &Value::Null), "{result}");
}

/// What an error leaves behind can be looked at, as in Python's own REPL.
fn post_mortem(daemon: &Daemon, name: &str) {
    let context = create(daemon, name, &json!({}));
    let cell = "import sys; hasattr(sys, 'last_value')";
    assert_eq!(text(&code(daemon, name, &context, cell)), Some("False"));
    code(daemon, name, &context, "def fails():\n  inner = 5\n  1/0\nfails()");
    let cell = "import sys, traceback; [sys.last_type.__name__, str(sys.last_value), traceback.extract_tb(sys.last_traceback)[0].name]";
    let result = code(daemon, name, &context, cell);
    assert_eq!(text(&result), Some("['ZeroDivisionError', 'division by zero', '<module>']"), "{result}");
    let result = code(daemon, name, &context, "%tb");
    assert!(
        result["stdout"].as_str().unwrap().ends_with("ZeroDivisionError: division by zero\n"),
        "{result}"
    );
    // Also of a magic that shows it and goes on.
    code(daemon, name, &context, "open('/tmp/fails.py', 'w').write('raise KeyError(7)')\n%run /tmp/fails.py");
    assert_eq!(text(&code(daemon, name, &context, "sys.last_value")), Some("KeyError(7)"));
    code(daemon, name, &context, "fails()");
    let mut connection = start(daemon, name, &context, &json!({"code": "%debug", "stdin": true}));
    let mut answers = vec!["q", "p inner * 111"];
    let events = events_until(&mut connection, "end", |event| {
        if event.name == "input" {
            super::ask(daemon, name, &context, "input", Some(&json!({"value": answers.pop().unwrap()})));
        }
    });
    assert!(events.iter().any(|event| event.data.contains("555")), "{events:?}");
}

fn tables(daemon: &Daemon, name: &str) {
    let result = code(
        daemon,
        name,
        "python",
        "import pandas as pd, numpy as np\npd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})",
    );
    assert_eq!(text(&result), Some("   a  b\n0  1  x\n1  2  y"), "{result}");
    let data = &result["results"][0]["data"];
    assert!(data["text/html"].as_str().unwrap().contains("<table"));
    let names: Vec<&Value> =
        data[FRAME]["columns"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((&data[FRAME]["rows"], &data[FRAME]["row_count"]), (&json!([[1, "x"], [2, "y"]]), &json!(2)));
    let result = code(daemon, name, "python", "pd.DataFrame(np.zeros((1_000_000, 3)), columns=list('abc'))");
    let frame = &result["results"][0]["data"][FRAME];
    assert_eq!(frame["rows"].as_array().unwrap().len(), 1000);
    assert_eq!((&frame["row_count"], &frame["truncated"]), (&json!(1_000_000), &json!(true)));
    let result = code(
        daemon,
        name,
        "python",
        "pd.DataFrame({'n': [np.nan, np.inf], 't': pd.to_datetime(['2026-01-02', None])})",
    );
    let frame = &result["results"][0]["data"][FRAME];
    assert_eq!(frame["rows"], json!([[null, "2026-01-02T00:00:00"], ["Infinity", null]]), "{frame}");
    let result = code(daemon, name, "python", "pd.Series([1, 2], name='s')");
    assert_eq!(result["results"][0]["data"][FRAME]["columns"][0]["name"], "s", "{result}");
    // Of several levels, in columns as in rows.
    let cell = "pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([('a', 'x'), ('b', 3)]), index=pd.MultiIndex.from_tuples([('r', 7)]))";
    let result = code(daemon, name, "python", cell);
    let frame = &result["results"][0]["data"][FRAME];
    let names: Vec<&Value> = frame["columns"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, [&json!(["a", "x"]), &json!(["b", 3])], "{frame}");
    assert_eq!(frame["index"], json!([["r", 7]]), "{frame}");
}

/// What programs read of a table is what is in it: all digits, infinities, times with their zones, names as they are.
fn exact_tables(daemon: &Daemon, name: &str) {
    let frame = |cell: &str| {
        let result = code(daemon, name, "python", cell);
        assert_eq!((&result["error"], &result["stderr"]), (&Value::Null, &json!("")), "{cell}: {result}");
        result["results"][0]["data"][FRAME].clone()
    };
    let found =
        frame("pd.DataFrame({'v': [1e-12, 0.1+0.2, 1.2345678901234568], 'w': [np.inf, -np.inf, np.nan]})");
    assert_eq!(
        found["rows"],
        json!([[1e-12, "Infinity"], [0.1 + 0.2, "-Infinity"], [1.2345678901234568, null]]),
        "{found}"
    );
    let found = frame(
        "import decimal\nt = pd.to_datetime(['2026-01-02 03:04:05.123456789', None])\n\
         pd.DataFrame({'t': t, 'z': t.tz_localize('Europe/Berlin'), 'd': t - t[0], 'n': pd.array([2**62, None], dtype='Int64'), \
         'q': [decimal.Decimal('19.99'), decimal.Decimal('1.00000000000000000001')], 'l': [[1, np.nan, t[0]], {'a': np.inf}]}, index=t)",
    );
    let whole = "2026-01-02T03:04:05.123456789";
    let zoned = format!("{whole}+01:00");
    assert_eq!(
        found["rows"],
        json!([
            [whole, zoned, "P0DT0H0M0S", 1_u64 << 62, 19.99, [1, null, whole]],
            [null, null, null, null, "1.00000000000000000001", {"a": "Infinity"}]
        ]),
        "{found}"
    );
    assert_eq!(found["index"], json!([whole, null]), "{found}");
    let found = frame("l = []; l.append(l); pd.DataFrame({'a': [l, {(1, 2): 3}]})");
    assert_eq!(found["rows"], json!([["[[...]]"], ["{(1, 2): 3}"]]), "{found}");
    let found = frame("pd.DataFrame([[1, 2, 3, 4]], columns=[None, 1, 1.5, 's'])");
    let names: Vec<&Value> = found["columns"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(json!(names), json!([null, 1, 1.5, "s"]), "{found}");
    assert_eq!((&found["index_names"], &found["column_names"]), (&json!([null]), &json!([null])), "{found}");
    let found = frame(
        "pd.DataFrame({'a': [1, 2], 'b': ['x', 'y'], 'v': [3, 4]}).pivot(index='a', columns='b', values='v')",
    );
    assert_eq!((&found["index_names"], &found["column_names"]), (&json!(["a"]), &json!(["b"])), "{found}");
    // A frame of more than what comes of it takes no longer than that.
    let cell = "big = pd.DataFrame(np.random.rand(100_000, 10)); import sys, time; began = time.perf_counter(); \
                sys.modules['_stockade'].of_frame(big, {}); time.perf_counter() - began < 0.05";
    assert_eq!(text(&code(daemon, name, "python", cell)), Some("True"));
}

fn charts(daemon: &Daemon, name: &str) {
    let element = |cell: &str| chart(daemon, name, cell)["axes"][0]["elements"][0].clone();
    let found = chart(
        daemon,
        name,
        "import matplotlib.pyplot as plt\nplt.plot([1,2,3], label='s'); plt.title('T'); plt.xlabel('X'); plt.show()",
    );
    let axes = &found["axes"][0];
    assert_eq!((&axes["title"], &axes["x_label"]), (&json!("T"), &json!("X")));
    assert_eq!(axes["elements"][0]["points"], json!([[0.0, 1], [1.0, 2], [2.0, 3]]), "{found}");
    assert_eq!((&axes["elements"][0]["type"], &axes["elements"][0]["label"]), (&json!("line"), &json!("s")));
    for (cell, kind, points) in [
        ("plt.bar(['a','b'], [4,4]);", "bar", json!([["a", 4], ["b", 4]])),
        ("plt.bar(['a'], [4]);", "bar", json!([["a", 4]])),
        ("plt.barh(['a','b'], [1,2]);", "bar", json!([["a", 1], ["b", 2]])),
        ("plt.hist([0, 0, 1, 2], bins=2);", "histogram", json!([[0.0, 1.0, 2.0], [1.0, 2.0, 2.0]])),
        ("plt.pie([1,3], labels=['a','b']);", "pie", json!([["a", 0.25], ["b", 0.75]])),
        ("plt.scatter([1,2], [3,float('nan')]);", "scatter", json!([[1.0, 3.0], [2.0, null]])),
        ("plt.plot([1,2], [3,4], 'o');", "scatter", json!([[1, 3], [2, 4]])),
    ] {
        let found = element(cell);
        assert_eq!((&found["type"], &found["points"]), (&json!(kind), &points), "{cell}: {found}");
    }
    assert_eq!(element("plt.barh(['a'], [1]);")["orientation"], "horizontal");
    let found = element("plt.boxplot([[1,2,3,4,100],[2,3,4]], tick_labels=['p','q']);");
    assert_eq!(found["type"], "box");
    assert_eq!(
        (&found["points"][0]["median"], &found["points"][0]["outliers"]),
        (&json!(3.0), &json!([100])),
        "{found}"
    );
    assert_eq!(
        (&found["points"][0]["label"], &found["points"][1]["label"]),
        (&json!("p"), &json!("q")),
        "{found}"
    );
    assert_eq!(element("plt.imshow([[1,2],[3,4]]);")["values"], json!([[1, 2], [3, 4]]));
    let found = chart(daemon, name, "f, (a, b) = plt.subplots(1, 2); a.plot([1]); b.bar(['x'], [1]); f");
    assert_eq!(found["axes"].as_array().unwrap().len(), 2, "{found}");
    let found = element("plt.plot(range(1_000_000));");
    assert_eq!((found["points"].as_array().unwrap().len(), &found["truncated"]), (5000, &json!(true)));
    let found = element("import datetime\nplt.plot([datetime.date(2026, 1, 2)], [1]);");
    assert_eq!(found["points"][0][0], "2026-01-02T00:00:00", "{found}");
    // Two figures are two; one that was shown is not shown again.
    let result = code(daemon, name, "python", "plt.figure(); plt.plot([1]); plt.figure(); plt.plot([2]);");
    assert_eq!(result["results"].as_array().unwrap().len(), 2);
    let result = code(daemon, name, "python", "plt.plot([1]); plt.show(); 5");
    assert_eq!(result["results"].as_array().unwrap().len(), 2);
    assert_eq!(code(daemon, name, "python", "6")["results"].as_array().unwrap().len(), 1);
    chart(daemon, name, "import seaborn as sns\nsns.barplot(x=['a','b'], y=[1,2]);");
    chart(daemon, name, "pd.DataFrame({'a': [1,2]}).plot();");
}

fn other_charts(daemon: &Daemon, name: &str) {
    let found = chart(daemon, name, "import plotly.express as px\npx.bar(x=['a','b'], y=[1,2], title='P')");
    assert_eq!((&found["library"], &found["title"]), (&json!("plotly"), &json!("P")));
    assert_eq!(found["axes"][0]["elements"][0]["points"], json!([["a", 1], ["b", 2]]), "{found}");
    let found = chart(daemon, name, "px.line(x=[1,2], y=[3,4]).show()");
    assert_eq!(found["axes"][0]["elements"][0]["type"], "line", "{found}");
    for (cell, kind) in [
        ("px.pie(names=['a','b'], values=[1,3])", "pie"),
        ("px.histogram(x=[1,1,2])", "histogram"),
        ("px.box(y=[1,2,3])", "box"),
        ("px.imshow([[1,2],[3,4]])", "heatmap"),
        ("px.scatter(x=[1], y=[2])", "scatter"),
    ] {
        let found = chart(daemon, name, cell);
        assert_eq!(found["axes"][0]["elements"][0]["type"], kind, "{cell}: {found}");
    }
    let result = code(daemon, name, "python", "px.scatter(x=[1], y=[2])");
    let data = &result["results"][0]["data"];
    assert!(data["application/vnd.plotly.v1+json"]["data"].is_array() && data["text/html"].is_null());
    let found = chart(
        daemon,
        name,
        "import altair as alt\nalt.Chart(pd.DataFrame({'a': [1,2], 'b': [3,4]})).mark_bar().encode(x='a', y='b')",
    );
    assert_eq!(found["axes"][0]["elements"][0]["points"], json!([[1, 3], [2, 4]]), "{found}");
    // Of more rows than altair itself lets through.
    let cell = "alt.Chart(pd.DataFrame({'a': range(6000), 'b': 1})).mark_line().encode(x='a', y='b')";
    let result = code(daemon, name, "python", cell);
    assert_eq!((&result["error"], &result["stderr"]), (&Value::Null, &json!("")), "{result}");
    let data = result["results"][0]["data"].as_object().unwrap();
    assert!(data.keys().any(|mime| mime.starts_with("application/vnd.vegalite.")), "{:?}", data.keys());
    let line = &data[CHART]["axes"][0]["elements"][0];
    assert_eq!((line["points"].as_array().unwrap().len(), &line["truncated"]), (5000, &json!(true)));
    assert_eq!(text(&code(daemon, name, "python", "alt.data_transformers.options")), Some("{}"));
}

/// Each MIME type comes as what gives it says, as a value and as a display.
fn every_type(daemon: &Daemon, name: &str) {
    code(
        daemon,
        name,
        "python",
        "from IPython.display import *\nclass Paper:\n  def _repr_pdf_(self): return b'%PDF-1.4'\n\
         class Page:\n  def _repr_mimebundle_(self, **options): return {'x-own/type': 'own', 'text/plain': 'p'}",
    );
    for (value, mime, wanted) in [
        ("HTML('<b>')", "text/html", json!("<b>")),
        ("Markdown('**m**')", "text/markdown", json!("**m**")),
        ("Latex('$x$')", "text/latex", json!("$x$")),
        (
            "SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')",
            "image/svg+xml",
            json!("<svg xmlns=\"http://www.w3.org/2000/svg\"/>"),
        ),
        ("Image(b'\\x89PNG\\r\\n\\x1a\\n', format='png')", "image/png", json!("iVBORw0KGgo=")),
        ("Image(b'\\xff\\xd8\\xff', format='jpeg')", "image/jpeg", json!("/9j/")),
        ("Paper()", "application/pdf", json!("JVBERi0xLjQ=")),
        ("JSON({'a': [1]})", "application/json", json!({"a": [1]})),
        ("Javascript('1')", "application/javascript", json!("1")),
        ("Page()", "x-own/type", json!("own")),
    ] {
        for cell in [value.to_owned(), format!("display({value})")] {
            let result = code(daemon, name, "python", &cell);
            let shown = result["results"][0]["data"][mime].clone();
            let shown = shown.as_str().map_or(shown.clone(), |text| json!(text.trim_end()));
            assert_eq!(shown, wanted, "{cell}: {result}");
        }
    }
    let result = code(daemon, name, "python", "alt.Chart(pd.DataFrame({'a': [1]})).mark_bar().encode(x='a')");
    let data = result["results"][0]["data"].as_object().unwrap();
    assert!(data.keys().any(|mime| mime.starts_with("application/vnd.vegalite.v")), "{result}");
}

fn whole_notebooks(daemon: &Daemon, name: &str) {
    let explore = [
        "import pandas as pd, numpy as np\nrng = np.random.default_rng(7)\ndf = pd.DataFrame({'day': pd.date_range('2026-01-01', periods=90), 'shop': rng.choice(['n', 's'], 90), 'sold': rng.poisson(20, 90)})\ndf.head()",
        "df.describe()",
        "df.info()",
        "df.groupby('shop').sold.agg(['mean', 'max'])",
        "df.pivot_table(index=df.day.dt.month, columns='shop', values='sold', aggfunc='sum')",
        "df.to_csv('/tmp/sales.csv', index=False); pd.read_csv('/tmp/sales.csv').equals(df.assign(day=df.day.astype(str)))",
        "df.set_index('day').sold.rolling(7).mean().plot(title='week');",
    ];
    for cell in explore {
        let result = code(daemon, name, "python", cell);
        assert_eq!((&result["error"], &result["stderr"]), (&Value::Null, &json!("")), "{cell}: {result}");
    }
    let page = [
        "import plotly.express as px, plotly.graph_objects as go\nfrom plotly.subplots import make_subplots\nshops = df.groupby(['day', 'shop'], as_index=False).sold.sum(); shops.shape[1]",
        "fig = px.line(shops, x='day', y='sold', color='shop', title='Sold'); fig.update_layout(legend_title_text='Shop'); fig.show()",
        "px.histogram(df, x='sold', color='shop', nbins=12)",
        "px.box(df, x='shop', y='sold', points='all')",
        "both = make_subplots(2, 1); both.add_trace(go.Bar(x=['n', 's'], y=[1, 2]), 1, 1); both.add_trace(go.Scatter(y=[1, 3, 2]), 2, 1); both",
        "both.write_html('/tmp/page.html', include_plotlyjs='cdn'); 'plotly' in open('/tmp/page.html').read()",
    ];
    let mut figures = 0;
    for cell in page {
        let result = code(daemon, name, "python", cell);
        assert_eq!((&result["error"], &result["stderr"]), (&Value::Null, &json!("")), "{cell}: {result}");
        let plotly = |shown: &&Value| shown["data"]["application/vnd.plotly.v1+json"]["data"].is_array();
        figures += result["results"].as_array().unwrap().iter().filter(plotly).count();
    }
    assert_eq!(figures, 4, "each once");
    let gallery = "import matplotlib.pyplot as plt\nfor i in range(20):\n  plt.figure(); plt.plot([i, 1]); plt.title('figure %d' % i)";
    let result = code(daemon, name, "python", gallery);
    let shown = result["results"].as_array().unwrap().iter();
    let titles: Vec<&Value> = shown.map(|shown| &shown["data"][CHART]["axes"][0]["title"]).collect();
    let wanted: Vec<String> = (0..20).map(|i| format!("figure {i}")).collect();
    assert_eq!(json!(titles), json!(wanted), "{}", result["stderr"]);
}
