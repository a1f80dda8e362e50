//! Charts: that what is said of a figure draws the same figure again, and that figures come as the code asks.

use serde_json::{Value, json};

use super::data::{CHART, of_image};
use super::{code, code_with, text};
use crate::harness::{Daemon, skip};

const GALLERY: &str = include_str!("../../fixtures/interpreter/gallery.py");
const REDRAW: &str = include_str!("../../fixtures/interpreter/redraw.py");

#[track_caller]
pub(super) fn runs(daemon: &Daemon, sandbox: &str, cell: &str) -> Value {
    let result = code(daemon, sandbox, "python", cell);
    assert_eq!((&result["error"], &result["stderr"]), (&Value::Null, &json!("")), "{cell}: {result}");
    result
}

#[test]
fn figures_can_be_drawn_again_from_their_data() {
    let daemon = Daemon::start();
    let Some(name) = of_image(&daemon, "python") else {
        skip!("built-image", "target/images/python is not there");
    };
    let (first, figures) = GALLERY.split_once("# %% ").unwrap();
    runs(&daemon, &name, first);
    runs(&daemon, &name, REDRAW);
    let mut drawn = 0;
    for figure in figures.split("# %% ") {
        let (title, cell) = figure.split_once('\n').unwrap();
        let shown = runs(&daemon, &name, &format!("{cell}original = ink(plt.gcf())"))["results"].clone();
        let [shown] = shown.as_array().unwrap().as_slice() else { panic!("{title}: {shown}") };
        assert!(shown["data"]["image/png"].is_string(), "{title}");
        daemon.put(&name, "/tmp/chart.json", shown["data"][CHART].to_string().as_bytes());
        let same = "round(alike(original, ink(redraw(json.load(open('/tmp/chart.json'))))), 3)";
        let result = runs(&daemon, &name, same);
        let alike: f64 = text(&result).unwrap().parse().unwrap();
        // Edges of areas are not said; everything else is the same to the pixel.
        assert!(alike > 0.97, "{title}: {alike}: {}", shown["data"][CHART]);
        drawn += 1;
    }
    assert_eq!(drawn, 34);
    // The measure knows one figure from another.
    let other = "plt.plot([5, 1, 4]); other = ink(plt.gcf()); plt.close(); alike(original, other) < 0.5";
    assert_eq!(text(&runs(&daemon, &name, other)), Some("True"));
    formats(&daemon, &name);
    several_axes(&daemon, &name);
    facets(&daemon, &name);
    computed(&daemon, &name);
    altair_computes(&daemon, &name);
    plotly_histograms(&daemon, &name);
    plotly_axes(&daemon, &name);
    several_histograms(&daemon, &name);
    times(&daemon, &name);
    outlined(&daemon, &name);
    beside(&daemon, &name);
    beside_in_plotly(&daemon, &name);
    once(&daemon, &name);
    unsaid(&daemon, &name);
    looks(&daemon, &name);
    turned(&daemon, &name);
    super::pictures::look_as_ipythons(&daemon, &name);
}

/// What figures are shown as is the code's to say.
fn formats(daemon: &Daemon, name: &str) {
    let kinds = |cell: &str| {
        let result = runs(daemon, name, cell);
        let shown = result["results"].as_array().unwrap();
        assert_eq!(shown.len(), 1, "{cell}: shown {} times", shown.len());
        let kinds: Vec<&str> = shown[0]["data"].as_object().unwrap().keys().map(String::as_str).collect();
        let kinds: Vec<String> = kinds
            .iter()
            .filter(|kind| !kind.contains("stockade") && **kind != "text/plain")
            .map(|kind| (*kind).to_owned())
            .collect();
        (kinds, shown[0].clone())
    };
    let (all, shown) =
        kinds("%config InlineBackend.figure_formats = ['png', 'svg', 'pdf', 'jpeg']\nplt.plot([1, 2]);");
    assert_eq!(all, ["application/pdf", "image/jpeg", "image/png", "image/svg+xml"]);
    assert!(shown["data"]["image/svg+xml"].as_str().unwrap().contains("<svg"));
    // `%PDF` and the first bytes of a JPEG, in base64.
    assert!(shown["data"]["application/pdf"].as_str().unwrap().starts_with("JVBE"));
    assert!(shown["data"]["image/jpeg"].as_str().unwrap().starts_with("/9j/"));
    assert!(shown["data"][CHART].is_object());
    assert_eq!(kinds("plt.plot([1, 2]); plt.show()").0.len(), 4, "it stays so");
    let (retina, shown) =
        kinds("%config InlineBackend.figure_format = 'retina'\nf = plt.figure(); plt.plot([1, 2]); f");
    assert_eq!(retina, ["image/png"]);
    assert!(
        shown["metadata"]["image/png"]["width"].as_u64().is_some_and(|width| width > 100),
        "{}",
        shown["metadata"]
    );
    let (svg, _) = kinds(
        "from matplotlib_inline.backend_inline import set_matplotlib_formats\nset_matplotlib_formats('svg')\nplt.plot([1, 2]);",
    );
    assert_eq!(svg, ["image/svg+xml"]);
    assert_eq!(
        kinds("%matplotlib inline\n%config InlineBackend.figure_format = 'png'\nplt.plot([1, 2]);").0,
        ["image/png"]
    );
    let result = code(daemon, name, "python", "%config InlineBackend.figure_format = 'gif'");
    assert!(result["stderr"].as_str().unwrap().contains("not 'gif'"), "{result}");
}

#[track_caller]
pub(super) fn chart(daemon: &Daemon, name: &str, cell: &str) -> Value {
    let result = runs(daemon, name, cell);
    let shown = result["results"].as_array().unwrap();
    assert_eq!(shown.len(), 1, "{cell}: shown {} times", shown.len());
    shown[0]["data"][CHART].clone()
}

fn several_axes(daemon: &Daemon, name: &str) {
    runs(
        daemon,
        name,
        "import plotly.express as px, plotly.graph_objects as go, altair as alt\nfrom plotly.subplots import make_subplots\nd = pd.DataFrame({'a': ['x', 'y', 'x', 'y'], 'b': [1, 2, 3, 4], 'c': ['p', 'p', 'q', 'q']})",
    );
    let found = chart(
        daemon,
        name,
        "f = make_subplots(1, 2, subplot_titles=('L', 'R')); f.add_bar(x=[1], y=[2], row=1, col=1); f.add_scatter(x=[1, 2], y=[2, 3], row=1, col=2); f",
    );
    let axes: Vec<_> = found["axes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|axes| (axes["title"].clone(), axes["elements"][0]["type"].clone()))
        .collect();
    assert_eq!(axes, [(json!("L"), json!("bar")), (json!("R"), json!("line"))], "{found}");
    let found = chart(
        daemon,
        name,
        "alt.Chart(d).mark_line().encode(x='b', y='b').properties(title='H') | alt.Chart(d).mark_point().encode(x='a', y='b')",
    );
    assert_eq!(
        (&found["axes"][0]["title"], &found["axes"][1]["elements"][0]["type"]),
        (&json!("H"), &json!("scatter")),
        "{found}"
    );
    // The scale of its colours is no chart of its own.
    let found = chart(daemon, name, "plt.imshow([[1, 2], [3, 4]]); plt.colorbar();");
    assert_eq!(found["axes"].as_array().unwrap().len(), 1, "{found}");
    let found = chart(daemon, name, "plt.contourf([[1, 2], [3, 4]]);");
    assert_eq!(found["axes"][0]["elements"][0]["type"], "unknown", "what cannot be said is: {found}");
}

/// Panels of one chart are axes of their own, each with its part of the data.
fn facets(daemon: &Daemon, name: &str) {
    let unit = "alt.Chart(d).mark_bar().encode(x='a', y='b'";
    for (cell, wanted) in [
        (format!("{unit}, column='c')"), json!([["p", [["x", 1], ["y", 2]]], ["q", [["x", 3], ["y", 4]]]])),
        (format!("{unit}).facet('c', columns=1)"), json!([["p", [["x", 1], ["y", 2]]], ["q", [["x", 3], ["y", 4]]]])),
        (
            format!("{unit}, row=alt.Row('c', sort='descending'), column='a')"),
            json!([["q, x", [["x", 3]]], ["q, y", [["y", 4]]], ["p, x", [["x", 1]]], ["p, y", [["y", 2]]]]),
        ),
        (
            "alt.Chart(d).mark_point().encode(x=alt.X(alt.repeat('column'), type='nominal'), y='b').repeat(column=['a', 'c'])".to_owned(),
            json!([["a", [["x", 1], ["y", 2], ["x", 3], ["y", 4]]], ["c", [["p", 1], ["p", 2], ["q", 3], ["q", 4]]]]),
        ),
        (
            "alt.layer(alt.Chart().mark_bar(), alt.Chart().mark_line(), data=d).encode(x='a', y='b').facet(row='c')".to_owned(),
            json!([["p", [["x", 1], ["y", 2]]], ["q", [["x", 3], ["y", 4]]]]),
        ),
    ] {
        let found = chart(daemon, name, &cell);
        let panels: Vec<Value> = found["axes"].as_array().unwrap().iter()
            .map(|axes| json!([axes["title"], axes["elements"][0]["points"]])).collect();
        assert_eq!(json!(panels), wanted, "{cell}: {found}");
        assert!(found["axes"][0]["facet"].is_object(), "{cell}: {found}");
    }
    let found = chart(daemon, name, &format!("{unit}, row='c')"));
    assert_eq!(found["axes"][1]["facet"], json!({"row": {"field": "c", "value": "q"}}), "{found}");
}

/// What the libraries compute in the browser, a client has computed.
fn computed(daemon: &Daemon, name: &str) {
    for (cell, kind, points) in [
        ("alt.Chart(d).mark_bar().encode(x='a', y='sum(b)')", "bar", json!([["x", 4], ["y", 6]])),
        ("alt.Chart(d).mark_bar().encode(y='a', x='mean(b)')", "bar", json!([["x", 2.0], ["y", 3.0]])),
        ("alt.Chart(d).mark_arc().encode(theta='sum(b)', color='a')", "pie", json!([["x", 0.4], ["y", 0.6]])),
        ("px.pie(d, names='a', values='b')", "pie", json!([["x", 0.4], ["y", 0.6]])),
    ] {
        let found = chart(daemon, name, cell)["axes"][0]["elements"][0].clone();
        assert_eq!((&found["type"], &found["points"]), (&json!(kind), &points), "{cell}: {found}");
    }
    // Each library has quartiles of its own: plotly's boxes of two values end at them.
    let row = |label: &str, five: [f64; 5], outliers: Value| {
        let [min, q1, median, q3, max] = five;
        json!({"label": label, "min": min, "q1": q1, "median": median, "q3": q3, "max": max, "outliers": outliers})
    };
    let of_y = row("y", [2.0, 2.0, 3.0, 4.0, 4.0], json!([]));
    for (cell, wanted) in [
        ("px.box(d, x='a', y='b')", of_y.clone()),
        ("go.Figure(go.Box(x=d.a, y=d.b))", of_y),
        ("alt.Chart(d).mark_boxplot().encode(x='a', y='b')", row("y", [2.0, 2.5, 3.0, 3.5, 4.0], json!([]))),
        (
            "go.Figure([go.Box(), go.Box(y=[1, 2, 3, 4, 5, 6, 100], name='n')])",
            row("n", [1.0, 2.25, 4.0, 5.75, 6.0], json!([100.0])),
        ),
        (
            "go.Figure([go.Box(), go.Box(y=list(range(1, 8)), name='n', quartilemethod='exclusive')])",
            row("n", [1.0, 2.0, 4.0, 6.0, 7.0], json!([])),
        ),
        (
            "go.Figure([go.Box(), go.Box(y=list(range(1, 8)), name='n', quartilemethod='inclusive')])",
            row("n", [1.0, 2.5, 4.0, 5.5, 7.0], json!([])),
        ),
        (
            "go.Figure(go.Box(x=['m', 'n'], q1=[0, 2], median=[1, 3], q3=[2, 4], lowerfence=[0, 1], upperfence=[9, 6]))",
            row("n", [1.0, 2.0, 3.0, 4.0, 6.0], json!([])),
        ),
        (
            "go.Figure([go.Box(), go.Box(q1=[1], median=[2], q3=[3], y=[[0, 1, 2, 3, 4, 20]], name='n')])",
            row("n", [0.0, 1.0, 2.0, 3.0, 4.0], json!([20.0])),
        ),
    ] {
        let found = chart(daemon, name, cell);
        let rows: Vec<Value> = found["axes"][0]["elements"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|element| element["points"].as_array().unwrap().clone())
            .collect();
        assert_eq!(floats(rows.last().unwrap()), floats(&wanted), "{cell}: {found}");
    }
    let found = chart(daemon, name, "px.bar(d, x='a', y='b', color='c', barmode='stack')");
    assert_eq!(
        (&found["axes"][0]["bar_mode"], found["axes"][0]["elements"].as_array().unwrap().len()),
        (&json!("stack"), 2),
        "{found}"
    );
    let found = chart(daemon, name, "px.histogram(x=np.array([1, 2, np.nan]))");
    assert_eq!(found["axes"][0]["elements"][0]["values"], json!([1.0, 2.0, null]), "{found}");
    // Nothing is drawn twice, and no library's own frames or warnings come along.
    let result = code_with(
        daemon,
        name,
        "python",
        &json!({"code": "import seaborn as sns; sns.boxplot(x=['a', 'a', 'b'], y=[1, 2, 3]);"}),
    );
    assert_eq!((result["results"].as_array().unwrap().len(), &result["stderr"]), (1, &json!("")), "{result}");
}

/// What altair would compute is computed as it does, or no numbers come.
fn altair_computes(daemon: &Daemon, name: &str) {
    for cell in [
        "alt.Chart(d).transform_filter('datum.b > 2').mark_bar().encode(x='a', y='b')",
        "alt.layer(alt.Chart().mark_bar(), data=d).transform_calculate(b='datum.b * 2').encode(x='a', y='b')",
        "(alt.Chart(d).mark_line().encode(x='a', y='b') | alt.Chart(d).mark_bar().encode(x='a', y='b')).transform_fold(['b'])",
        "alt.Chart(d).transform_filter('datum.b > 2').mark_bar().encode(x='a', y='b').facet('c')",
        "alt.Chart(d).mark_line().encode(x='yearmonth(b):T', y='b')",
        "alt.Chart(d).mark_bar().encode(x=alt.X('b', bin=True), y='mean(b)')",
        "alt.Chart(d).mark_bar().encode(x='a', y='stdev(b)')",
        "alt.Chart(d).mark_bar().encode(x='a', y=alt.Y('b', stack='normalize'), color='c')",
        "alt.Chart('https://example.org/data.json').mark_bar().encode(x='a:N', y='b:Q')",
    ] {
        let found = chart(daemon, name, cell);
        for axes in found["axes"].as_array().unwrap() {
            assert_eq!(axes["elements"][0]["type"], "unknown", "{cell}: {found}");
        }
    }
    let bars = "alt.Chart(d).mark_bar().encode";
    let of_p = json!([["x", 1], ["y", 2]]);
    for (cell, points, bases) in [
        (format!("{bars}(x='a', y='b', color='c')"), of_p.clone(), json!([3, 4])),
        (format!("{bars}(x='a', y='sum(b)', color='c')"), of_p.clone(), json!([3, 4])),
        (format!("{bars}(y='a', x='b', color='c')"), of_p.clone(), Value::Null),
        (
            format!("{bars}(x='a', y='b')"),
            json!([["x", 1], ["y", 2], ["x", 3], ["y", 4]]),
            json!([0, 0, 1, 2]),
        ),
        (format!("{bars}(x='a', y=alt.Y('b', stack=None), color='c')"), of_p.clone(), Value::Null),
        (format!("{bars}(x='a', y='b', color='c', xOffset='c')"), of_p, Value::Null),
        (
            "alt.Chart(d).mark_area().encode(x='a', y='b', color='c')".to_owned(),
            json!([["x", 4], ["y", 6]]),
            json!([3, 4]),
        ),
    ] {
        let found = chart(daemon, name, &cell)["axes"][0]["elements"][0].clone();
        assert_eq!((&found["points"], &found["bases"]), (&points, &bases), "{cell}: {found}");
        assert_eq!(found["filled"] == true, cell.contains("area"), "{cell}: {found}");
    }
    let found = chart(
        daemon,
        name,
        "alt.layer(alt.Chart(d).mark_rule(color='#ff0000').encode(y='mean(b)'), alt.Chart(d).mark_text().encode(x='a', y='b', text='c'))",
    );
    let elements = &found["axes"][0]["elements"];
    assert_eq!(
        (&elements[0]["type"], &elements[0]["at"], &elements[0]["orientation"], &elements[0]["color"]),
        (&json!("rule"), &json!(2.5), &json!("horizontal"), &json!("#ff0000")),
        "{found}"
    );
    assert_eq!(
        (&elements[1]["type"], &elements[1]["text"], &elements[1]["x"], &elements[1]["y"]),
        (&json!("text"), &json!("p"), &json!("x"), &json!(1)),
        "{found}"
    );
}

fn plotly_histograms(daemon: &Daemon, name: &str) {
    for (cell, wanted) in [
        (
            "px.histogram(d, x='a', y='b', histfunc='avg')",
            json!({"type": "bar", "points": [["x", 2.0], ["y", 3.0]], "orientation": "vertical"}),
        ),
        ("px.histogram(d, x='a', y='b')", json!({"type": "bar", "points": [["x", 4], ["y", 6]]})),
        (
            "px.histogram(d, y='a', x='b', histfunc='max')",
            json!({"type": "bar", "points": [["x", 3], ["y", 4]], "orientation": "horizontal"}),
        ),
        (
            "px.histogram(d, x='a', histfunc='count')",
            json!({"type": "histogram", "values": ["x", "y", "x", "y"], "orientation": "vertical"}),
        ),
        (
            "go.Figure(go.Histogram(x=[0, 1, 2, 3], y=[1, 2, 3, 5], histfunc='min', xbins=dict(start=0, end=4, size=2)))",
            json!({"type": "histogram", "points": [[0, 2, 1], [2, 4, 3]]}),
        ),
        (
            "go.Figure(go.Histogram(x=[0, 1, 2, 3], y=[1, 2, 3, 5], histfunc='avg'))",
            json!({"type": "unknown", "artist": "histogram"}),
        ),
        ("px.histogram(x=[1, 2], nbins=7)", json!({"values": [1, 2], "bins": {"maxbins": 7}})),
    ] {
        let found = chart(daemon, name, cell)["axes"][0]["elements"][0].clone();
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(floats(&found[key]), floats(value), "{cell}: {found}");
        }
    }
}

/// What plotly's axes are, and which marks they have, where that is not the browser's choice.
fn plotly_axes(daemon: &Daemon, name: &str) {
    for (cell, wanted) in [
        (
            "go.Figure(go.Bar(x=['p', 'q'], y=[1, 2]))",
            json!({"x_scale": "category", "y_scale": "linear", "x_ticks": [["p", "p"], ["q", "q"]], "y_ticks": []}),
        ),
        ("go.Figure(go.Scatter(x=['2026-01-01', '2026-02-01'], y=[1, 2]))", json!({"x_scale": "date"})),
        ("go.Figure(go.Scatter(x=['1', '2'], y=[1, 2]))", json!({"x_scale": "linear"})),
        (
            "go.Figure(go.Scatter(y=[1, 2]), layout=dict(xaxis=dict(tickvals=[0, 1], ticktext=['one', 'two']), yaxis=dict(type='log', range=[0, 2])))",
            json!({"x_ticks": [[0, "one"], [1, "two"]], "y_scale": "log", "y_range": [1, 100]}),
        ),
        (
            "go.Figure([go.Box(y=[1, 2], name='A'), go.Box(y=[3], name='B')])",
            json!({"x_scale": "category", "x_ticks": [["A", "A"], ["B", "B"]], "y_scale": "linear"}),
        ),
        (
            "go.Figure(go.Bar(x=[1, 2], y=['p', 'q'], orientation='h'), layout=dict(xaxis=dict(dtick=0.5, range=[0.5, 1]), yaxis=dict(categoryarray=['q'])))",
            json!({"x_ticks": [[0.5, "0.5"], [1.0, "1"]], "x_range": [0.5, 1], "y_ticks": [["q", "q"], ["p", "p"]]}),
        ),
        (
            "go.Figure(go.Bar(x=['p', 'q'], y=[1, 2]), layout=dict(xaxis=dict(categoryorder='total ascending')))",
            json!({"x_scale": "category", "x_ticks": []}),
        ),
        ("px.bar(d, x='a', y='b').update_xaxes(type='category')", json!({"x_scale": "category"})),
    ] {
        let found = chart(daemon, name, cell)["axes"][0].clone();
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(&found[key], value, "{cell}: {key}: {found}");
        }
    }
}

/// Bars beside each other, or that leave room between them, are counts of bins nevertheless.
fn several_histograms(daemon: &Daemon, name: &str) {
    let element = |cell: &str, index: usize| chart(daemon, name, cell)["axes"][0]["elements"][index].clone();
    let two = "plt.hist([[0, 0, 1, 2], [1, 2, 2, 2]], bins=2, label=['p', 'q']";
    let found = element(&format!("{two});"), 1);
    assert_eq!(
        (&found["type"], floats(&found["points"]), &found["within"], &found["label"]),
        (&json!("histogram"), floats(&json!([[0, 1, 0], [1, 2, 4]])), &json!([0.5, 0.9]), &json!("q")),
        "{found}"
    );
    let found = element(&format!("{two}, stacked=True);"), 1);
    assert_eq!(
        (&found["type"], floats(&found["bases"]), &found["within"]),
        (&json!("histogram"), floats(&json!([2, 2])), &Value::Null),
        "{found}"
    );
    let found = element(&format!("{two}, orientation='horizontal');"), 0);
    assert_eq!(
        (&found["type"], &found["orientation"], &found["within"]),
        (&json!("histogram"), &json!("horizontal"), &json!([0.1, 0.5])),
        "{found}"
    );
    let found = element("plt.hist([0, 1, 1, 2], bins=2, rwidth=0.5);", 0);
    assert_eq!((&found["type"], &found["within"]), (&json!("histogram"), &json!([0.25, 0.75])), "{found}");
    let found = element("pd.DataFrame({'p': [0, 1, 2], 'q': [1, 2, 2]}).plot.hist(bins=2);", 1);
    assert_eq!((&found["type"], &found["label"]), (&json!("histogram"), &json!("q")), "{found}");
    // Bars that were moved are what they are now, and others never were histograms.
    let moved = "_, _, made = plt.hist([0, 1, 1, 2], bins=2, rwidth=0.5); made.patches[0].set_x(-5);";
    assert_eq!(element(moved, 0)["type"], "bar");
    assert_eq!(element("plt.hist([1, 2], bins=2); plt.bar([7, 9], [1, 2]);", 1)["type"], "bar");
    let same = "import inspect, pickle; fig, ax = plt.subplots(); ax.hist([[1, 2], [2, 3]]); pickle.loads(pickle.dumps(fig)); plt.close(); \
                'rwidth' in inspect.signature(plt.Axes.hist).parameters";
    assert_eq!(text(&runs(daemon, name, same)), Some("True"));
}

/// Times are ISO 8601, whatever the axis counts.
fn times(daemon: &Daemon, name: &str) {
    runs(daemon, name, "import datetime as dt; days = [dt.date(2024, 1, 1), dt.date(2024, 2, 1)]");
    for cell in [
        "pd.Series([1, 2], index=pd.date_range('2024-01-01', periods=2, freq='MS')).plot();",
        "pd.Series([1, 2, 3], index=pd.date_range('2024-01-01', periods=3)).plot();",
        "pd.Series([1, 2, 3], index=pd.date_range('2024-01-01', periods=3, freq='h')).plot();",
        "pd.Series([1, 2], index=pd.period_range('2024-01', periods=2, freq='M')).plot();",
        "pd.Series([1, 2], index=pd.to_datetime(days)).plot();",
        "plt.plot(pd.to_datetime(days), [1, 2]);",
        "plt.plot(np.array(days, dtype='datetime64[ns]'), [1, 2]);",
        "plt.plot(days, [1, 2]);",
        "plt.scatter(days, [1, 2]);",
        "plt.bar(days, [1, 2]);",
        "plt.fill_between(days, [1, 2], step=None);",
    ] {
        let found = chart(daemon, name, cell);
        let element = &found["axes"][0]["elements"][0];
        let first =
            if element["type"] == "area" { &element["polygons"][0][0] } else { &element["points"][0] };
        assert_eq!(first[0], "2024-01-01T00:00:00", "{cell}: {found}");
        assert!(found["axes"][0]["x_range"][0].is_string(), "{cell}: {found}");
    }
}

/// Histograms of one line are histograms still, unless it may stand on another.
fn outlined(daemon: &Daemon, name: &str) {
    let bins = json!([[1, 1.5, 1], [1.5, 2, 2]]);
    for (more, side) in [
        ("histtype='step'", "vertical"),
        ("histtype='stepfilled'", "vertical"),
        ("histtype='step', orientation='horizontal'", "horizontal"),
    ] {
        let found = chart(daemon, name, &format!("plt.hist([1, 2, 2], bins=2, {more});"));
        let element = &found["axes"][0]["elements"][0];
        assert_eq!(
            (&element["type"], floats(&element["points"]), &element["orientation"]),
            (&json!("histogram"), floats(&bins), &json!(side)),
            "{more}: {found}"
        );
    }
    let two = "plt.hist([[1, 2, 3], [2, 3, 3]], bins=2, ";
    let found = chart(daemon, name, &format!("{two}histtype='stepfilled', stacked=True);"));
    let element = &found["axes"][0]["elements"][0];
    assert_eq!(
        (floats(&element["points"]), floats(&element["bases"])),
        (floats(&json!([[1, 2, 0], [2, 3, 3]])), floats(&json!([1, 2]))),
        "{found}"
    );
    let found = chart(daemon, name, &format!("{two}histtype='step', stacked=True);"));
    assert_ne!(found["axes"][0]["elements"][0]["type"], "histogram", "{found}");
    let found = chart(daemon, name, "plt.fill([0, 1, 1, 0], [0, 0, 1, 1]);");
    assert_eq!(found["axes"][0]["elements"][0]["type"], "area", "{found}");
}

/// With every number as a float: a library's own may be either.
fn floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(all) => all.iter().map(floats).collect(),
        Value::Object(all) => all.iter().map(|(key, value)| (key.clone(), floats(value))).collect(),
        other => other.clone(),
    }
}

/// What is beside the data: rules, bands, words, second axes, space.
fn beside(daemon: &Daemon, name: &str) {
    let elements = |cell: &str| chart(daemon, name, cell)["axes"][0]["elements"].clone();
    for label in [
        "plt.hist([1, 2, 2], bins=2, label='n');",
        "plt.hist([1, 2, 2], bins=2, label='n', histtype='step');",
    ] {
        assert_eq!(elements(label)[0]["label"], "n", "{label}");
    }
    let found = elements(
        "plt.plot([1, 2]); plt.axhline(1.5, 0.25, 0.75, label='h'); plt.axvspan(0.2, 0.4); plt.text(0.5, 1.25, 'here'); \
         plt.annotate('there', (1, 2), xytext=(0.5, 1.75), arrowprops={});",
    );
    let kinds: Vec<&str> = found.as_array().unwrap().iter().filter_map(|one| one["type"].as_str()).collect();
    assert_eq!(kinds, ["rule", "band", "line", "text", "text"], "{found}");
    let rule = &found[0];
    assert_eq!(
        (&rule["orientation"], &rule["at"], &rule["extent"], &rule["label"]),
        (&json!("horizontal"), &json!(1.5), &json!([0.25, 0.75]), &json!("h")),
        "{found}"
    );
    assert_eq!((&found[1]["from"], &found[1]["to"]), (&json!(0.2), &json!(0.4)), "{found}");
    assert_eq!((&found[3]["text"], &found[4]["points_to"]), (&json!("here"), &json!([1, 2])), "{found}");
    assert!((found[3]["x"].as_f64().unwrap() - 0.5).abs() < 1e-9, "{found}");
    // Words that are placed by points from something else are where they are seen.
    let found = elements("b = plt.bar(['a', 'b'], [1, 2]); plt.bar_label(b);");
    assert!((found[2]["x"].as_f64().unwrap() - 1.0).abs() < 1e-9 && found[2]["text"] == "2", "{found}");
    let found = chart(
        daemon,
        name,
        "f, one = plt.subplots(); one.plot([1]); two = one.twinx(); two.plot([2]); two.set_ylabel('r');",
    );
    let axes = &found["axes"];
    assert_eq!(
        (&axes[1]["overlays"], &axes[1]["y_side"], &axes[1]["position"]),
        (&json!(0), &json!("right"), &axes[0]["position"]),
        "{found}"
    );
    let found = chart(
        daemon,
        name,
        "a = plt.figure().add_subplot(projection='3d'); a.scatter([1], [2], [3]); a.plot_surface(*np.meshgrid([0, 1], [0, 1]), np.ones((2, 2)));",
    );
    let axes = &found["axes"][0];
    let points = floats(&axes["elements"][0]["points"]);
    assert_eq!((&axes["projection"], points), (&json!("3d"), json!([[1.0, 2.0, 3.0]])), "{found}");
    assert_eq!(
        (&axes["elements"][1]["type"], axes["z_range"].is_array()),
        (&json!("unknown"), true),
        "{found}"
    );
}

/// The same of plotly and altair.
fn beside_in_plotly(daemon: &Daemon, name: &str) {
    let found = chart(
        daemon,
        name,
        "alt.layer(alt.Chart(d).mark_bar().encode(x='a', y='b'), alt.Chart(d).mark_line().encode(x='a', y='sum(b)')).resolve_scale(y='independent')",
    );
    let axes = &found["axes"];
    assert_eq!(
        (&axes[0]["y_label"], &axes[1]["y_label"], &axes[1]["overlays"]),
        (&json!("b"), &json!("sum of b"), &json!(0)),
        "{found}"
    );
    assert_eq!(axes.as_array().unwrap().len(), 2, "{found}");
    let found = chart(
        daemon,
        name,
        "f = make_subplots(specs=[[{'secondary_y': True}]]); f.add_scatter(y=[1, 2]); f.add_scatter(y=[10, 20], secondary_y=True); \
         f.add_hline(y=1.5); f.add_vrect(x0=0, x1=0.5, fillcolor='red'); f.add_annotation(x=1, y=2, text='hi'); f",
    );
    let kinds: Vec<&Value> =
        found["axes"][0]["elements"].as_array().unwrap().iter().map(|one| &one["type"]).collect();
    assert_eq!(kinds, ["line", "text", "rule", "band"], "{found}");
    let (first, second) = (&found["axes"][0], &found["axes"][1]);
    assert_eq!(
        (&second["overlays"], &second["y_side"], &second["position"]),
        (&json!(0), &json!("right"), &first["position"]),
        "{found}"
    );
    let found = chart(
        daemon,
        name,
        "go.Figure([go.Scatter3d(x=[1], y=[2], z=[3], mode='markers'), go.Bar(x=[1], y=[2])])",
    );
    let (space, plane) = (&found["axes"][0], &found["axes"][1]);
    assert_eq!(
        (&space["projection"], &space["elements"][0]["points"]),
        (&json!("3d"), &json!([[1, 2, 3]])),
        "{found}"
    );
    assert_eq!(plane["elements"][0]["type"], "bar", "{found}");
}

/// A figure that a cell has shown is not its value's picture as well, unless it has changed since.
fn once(daemon: &Daemon, name: &str) {
    let pictures = |cell: &str| {
        let result = runs(daemon, name, cell);
        let shown = result["results"].as_array().unwrap().clone();
        (shown.iter().filter(|shown| shown["data"][CHART].is_object()).count(), shown.len())
    };
    for (cell, wanted) in [
        ("fig = plt.figure(); plt.plot([1, 2]); plt.show(); fig", (1, 2)),
        ("fig", (1, 1)),
        ("display(fig); fig.gca().set_title('changed'); fig", (2, 2)),
        ("fig, ax = plt.subplots(); ax.plot([1]); fig", (1, 1)),
        ("plt.plot([1, 2]); plt.show(); plt.plot([1, 2]);", (2, 2)),
        ("one = px.line(x=[1, 2], y=[3, 4]); one.show(); one", (1, 2)),
        ("one", (1, 1)),
        ("two = alt.Chart(d).mark_bar().encode(x='a', y='b'); display(two); two", (1, 2)),
    ] {
        assert_eq!(pictures(cell), wanted, "{cell}");
    }
}

/// What no element has numbers of is said to be there.
fn unsaid(daemon: &Daemon, name: &str) {
    for (cell, wanted) in [
        ("plt.hexbin([1, 2, 3], [1, 2, 3], gridsize=3);", json!(["PolyCollection"])),
        ("plt.tripcolor([0, 1, 0, 1], [0, 0, 1, 1], [1, 2, 3, 4]);", json!(["PolyCollection"])),
        ("plt.pcolormesh([[0, 1], [1, 2]], [[0, 0], [1, 1]], [[1]]);", json!(["QuadMesh"])),
        (
            "plt.gca().add_patch(plt.Circle((0, 0), 1)); plt.arrow(0, 0, 1, 1); plt.table([['a']]);",
            json!(["Circle", "FancyArrow", "Table"]),
        ),
    ] {
        let found = chart(daemon, name, cell);
        let elements = found["axes"][0]["elements"].as_array().unwrap();
        assert!(elements.iter().all(|one| one["type"] == "unknown"), "{cell}: {found}");
        let artists: Vec<&Value> = elements.iter().map(|one| &one["artist"]).collect();
        assert_eq!(json!(artists), wanted, "{cell}: {found}");
    }
    let found = chart(daemon, name, "plt.gca().add_patch(plt.Rectangle((0, 1), 2, 3)); plt.bar([5], [1]);");
    let elements = &found["axes"][0]["elements"];
    assert_eq!(elements.as_array().unwrap().len(), 2, "{found}");
    assert_eq!(elements[1]["polygons"], json!([[[0.0, 1.0], [2.0, 1.0], [2.0, 4.0], [0.0, 4.0]]]), "{found}");
}

/// Points that differ, cells that do, and what is there for a legend alone.
fn looks(daemon: &Daemon, name: &str) {
    let element = |cell: &str| chart(daemon, name, cell)["axes"][0]["elements"][0].clone();
    let found = element("plt.scatter([1, 2], [3, 4], c=['r', 'lime'], s=[10, 20]);");
    assert_eq!(
        (&found["color"], &found["colors"], &found["sizes"]),
        (&Value::Null, &json!(["#ff0000", "#00ff00"]), &json!([10, 20])),
        "{found}"
    );
    let found = element("plt.scatter([1, 2], [3, 4], c=[0.5, 7], marker='x');");
    assert_eq!(
        (&found["colors"], &found["values"]),
        (&json!(["#440154", "#fde725"]), &json!([0.5, 7.0])),
        "{found}"
    );
    let found = element("plt.pcolormesh([0, 1, 10], [0, 1, 2], [[1, 2], [3, 4]]);");
    assert_eq!((&found["x"], &found["y"]), (&json!([0, 1, 10]), &json!([0, 2])), "{found}");
    let found = element("px.scatter(x=[1, 2], y=[3, 4], color=[5, 6], size=[7, 8])");
    assert_eq!((&found["values"], &found["sizes"]), (&json!([5, 6]), &json!([7, 8])), "{found}");
    let found = chart(
        daemon,
        name,
        "import seaborn as sns\nsns.scatterplot(x=[1, 2], y=[3, 4], hue=['p', 'q'], size=[1, 2]);",
    );
    assert_eq!(found["axes"][0]["elements"].as_array().unwrap().len(), 1, "{found}");
}

/// Axes that run the other way, are within others, or are of names and times.
fn turned(daemon: &Daemon, name: &str) {
    for (cell, wanted) in [
        ("plt.plot([1, 2]); plt.gca().invert_xaxis();", json!({"x_reversed": true, "y_reversed": false})),
        ("px.imshow([[1, 2], [3, 4]])", json!({"x_reversed": false, "y_reversed": true})),
        ("px.line(x=[1, 2], y=[3, 4]).update_xaxes(range=[2, 1])", json!({"x_reversed": true})),
        (
            "alt.Chart(d).mark_bar().encode(x='a:N', y=alt.Y('b:Q').scale(reverse=True))",
            json!({"x_scale": "category", "y_scale": "linear", "y_reversed": true}),
        ),
        (
            "alt.Chart(d).mark_line().encode(x='a:T', y=alt.Y('b:Q').scale(type='log'))",
            json!({"x_scale": "date", "y_scale": "log"}),
        ),
    ] {
        let found = chart(daemon, name, cell);
        for (field, value) in wanted.as_object().unwrap() {
            assert_eq!(&found["axes"][0][field], value, "{field}: {cell}: {found}");
        }
    }
    let cell = "f, ax = plt.subplots(); ax.plot([1, 2]); ax.inset_axes([0.5, 0.5, 0.4, 0.4]).plot([3, 4]); f";
    let found = chart(daemon, name, cell);
    let inset = &found["axes"][1];
    assert_eq!(
        (&inset["inset_of"], &inset["elements"][0]["points"][0][1]),
        (&json!(0), &json!(3)),
        "{found}"
    );
}
