//! How elements of charts look: what a figure says of its lines, marks and colours, whatever library it is of.

use serde_json::{Value, json};

use super::charts::chart;
use super::code;
use super::data::of_image;
use crate::harness::{Daemon, skip};

/// Checks the fields of the first elements that a figure has.
#[track_caller]
fn elements(daemon: &Daemon, name: &str, cell: &str, wanted: &[Value]) {
    let found = chart(daemon, name, cell);
    let elements = found["axes"][0]["elements"].as_array().unwrap();
    assert!(elements.len() >= wanted.len(), "{cell}: {found}");
    for (element, fields) in elements.iter().zip(wanted) {
        for (field, value) in fields.as_object().unwrap() {
            assert_eq!(&element[field], value, "{field}: {cell}: {found}");
        }
    }
}

#[test]
fn a_chart_says_how_its_elements_look() {
    let daemon = Daemon::start();
    let Some(name) = of_image(&daemon, "python") else {
        skip!("built-image", "target/images/python is not there");
    };
    let imports = "import matplotlib.pyplot as plt, plotly.express as px, plotly.graph_objects as go\n\
        import altair as alt, pandas as pd\n\
        d = pd.DataFrame({'a': [1, 2, 3], 'b': [4, 5, 6], 'c': list('xyx')})";
    assert_eq!(code(&daemon, &name, "python", imports)["error"], Value::Null);
    of_matplotlib(&daemon, &name);
    each_of_matplotlib(&daemon, &name);
    of_plotly(&daemon, &name);
    of_altair(&daemon, &name);
}

fn of_matplotlib(daemon: &Daemon, name: &str) {
    for (cell, wanted) in [
        (
            "plt.plot([1, 2], [3, 4], 'r--o', lw=3, alpha=.5); plt.plot([1, 2], dashes=[4, 1]);",
            vec![
                json!({"color": "#ff0000", "line_style": "dashed", "line_width": 3.0, "marker": "circle",
                    "marker_size": 6.0, "opacity": 0.5}),
                json!({"line_style": [4, 1], "marker": null}),
            ],
        ),
        (
            "plt.plot([1, 2], 'gs', mfc='blue'); plt.plot([1, 2], ':^', mfc='red');",
            vec![
                json!({"type": "scatter", "color": "#0000ff", "marker": "square", "line_style": null}),
                json!({"line_style": "dotted", "marker": "triangle-up", "marker_color": "#ff0000"}),
            ],
        ),
        (
            "plt.scatter([1, 2], [3, 4], c=[1, 9], cmap='plasma', vmin=0, marker='D', s=49);",
            vec![
                json!({"marker": "diamond", "marker_size": 7.0, "colormap": "plasma", "value_range": [0.0, 9.0],
                "value_scale": "linear"}),
            ],
        ),
        (
            "plt.pie([1, 3], labels=['a', 'b'], colors=['r', 'b'], wedgeprops={'width': .25});",
            vec![
                json!({"points": [["a", 0.25], ["b", 0.75]], "colors": ["#ff0000", "#0000ff"], "hole": 0.75}),
            ],
        ),
        (
            "plt.imshow([[1, 2], [3, 4]], cmap='hot', norm='log', vmin=1, vmax=8);",
            vec![json!({"colormap": "hot", "value_range": [1.0, 8.0], "value_scale": "log"})],
        ),
        (
            "plt.bar(['a', 'b'], [1, 2], color=['r', 'b']); plt.vlines([1], 0, 1, linestyles='dashed', lw=2);",
            vec![
                json!({"colors": ["#ff0000", "#0000ff"]}),
                json!({"type": "segments", "line_style": "dashed", "line_width": 2}),
            ],
        ),
        (
            "plt.axhline(1, ls='-.', c='k', lw=4); plt.axvspan(0, 1, alpha=.25);",
            vec![json!({"line_style": "dashdot", "line_width": 4.0}), json!({"opacity": 0.25})],
        ),
        (
            "plt.boxplot([[1, 2, 3]], patch_artist=True, boxprops={'facecolor': 'r'});",
            vec![json!({"type": "box", "color": "#ff0000"})],
        ),
        (
            "import seaborn as sns\nsns.scatterplot(data=d, x='a', y='b', style='c');",
            vec![json!({"markers": ["circle", "filled-x", "circle"]})],
        ),
    ] {
        elements(daemon, name, cell, &wanted);
    }
}

/// What each of several has of its own, and shapes without a name.
fn each_of_matplotlib(daemon: &Daemon, name: &str) {
    for (cell, wanted) in [
        // Marks that are drawn by points, or by a path, have no name.
        (
            "import matplotlib.path as mp, matplotlib.markers as mm\n\
             for m in [[(0, 0), (1, 1), (1, 0)], mp.Path([(0, 0), (1, 2)]), mm.MarkerStyle('s'), (5, 1), 4]: plt.plot([1, 2], marker=m, ms=7);",
            vec![
                json!({"type": "line", "marker": null, "marker_size": 7.0}),
                json!({"type": "line", "marker": null}),
                json!({"type": "line", "marker": "square"}),
                json!({"type": "line"}),
                json!({"type": "line", "marker": null}),
            ],
        ),
        (
            "plt.scatter([1, 2], [3, 4], marker=[(0, 0), (1, 1), (1, 0)]);",
            vec![json!({"type": "scatter", "marker": null, "points": [[1.0, 3.0], [2.0, 4.0]]})],
        ),
        (
            "plt.bar([1, 2], [3, 4], width=[.2, .6], color=['r', 'b']); plt.barh([1, 2], [3, 4], height=.5);",
            vec![
                json!({"widths": [0.2, 0.6], "width": null, "colors": ["#ff0000", "#0000ff"]}),
                json!({"width": 0.5, "widths": null, "orientation": "horizontal"}),
            ],
        ),
        (
            "plt.pie([1, 3], labels=['a', 'b'], colors=['r', 'b'], wedgeprops={'width': .25}); \
             plt.pie([1, 1], colors=['g', 'k'], radius=.75, wedgeprops={'width': .375});",
            vec![
                json!({"points": [["a", 0.25], ["b", 0.75]], "hole": 0.75, "radius": null}),
                json!({"points": [["", 0.5], ["", 0.5]], "hole": 0.5, "radius": 0.75, "colors": ["#008000", "#000000"]}),
            ],
        ),
        (
            "ax = plt.figure().add_subplot(projection='3d'); ax.scatter([1, 2], [3, 4], [6, 5], c=['r', 'b'], s=[9, 16])\n\
             ax.scatter([1, 2], [3, 4], [6, 5], c=[1, 9], cmap='plasma'); ax.scatter([1], [2], [3], color='g');",
            vec![
                json!({"type": "scatter", "points": [[1.0, 3.0, 6], [2.0, 4.0, 5]], "colors": ["#ff0000", "#0000ff"],
                    "sizes": [9, 16], "opacity": null}),
                json!({"values": [1.0, 9.0], "colormap": "plasma", "value_range": [1.0, 9.0]}),
                json!({"color": "#008000"}),
            ],
        ),
        (
            "ax = plt.figure().add_subplot(projection='3d')\n\
             ax.plot_wireframe(*[__import__('numpy').array(v) for v in ([[1, 2], [1, 2]], [[3, 3], [4, 4]], [[5, 6], [7, 8]])], color='r');",
            vec![json!({"type": "segments", "color": "#ff0000"})],
        ),
    ] {
        elements(daemon, name, cell, &wanted);
    }
}

fn of_plotly(daemon: &Daemon, name: &str) {
    let line = "go.Figure([go.Scatter(x=[1], y=[1], mode='lines+markers', line=dict(dash='dot', width=4, color='red'), \
        marker=dict(symbol='x', size=9)), go.Bar(x=[1], y=[2], opacity=.5)])";
    for (cell, wanted) in [
        (
            line,
            json!([{"color": "red", "line_style": "dotted", "line_width": 4, "marker": "x", "marker_size": 9},
                {"color": "#EF553B", "opacity": 0.5}]),
        ),
        (
            "px.line(d, x='a', y='b', color='c', line_dash='c')",
            json!([{"color": "#636efa", "line_style": "solid"}, {"color": "#EF553B", "line_style": "dotted"}]),
        ),
        (
            "go.Figure(go.Pie(labels=['a', 'b', 'c'], values=[1, 5, 3], hole=.4, marker_colors=[None, 'red']))",
            json!([{"colors": ["#EF553B", "red", "#636efa"], "hole": 0.4}]),
        ),
        (
            "go.Figure(go.Heatmap(z=[[1, 2]], colorscale=['black', 'white'], reversescale=True, zmin=0, zmax=9))",
            json!([{"colormap": [[0.0, "white"], [1.0, "black"]], "value_range": [0, 9]}]),
        ),
        (
            "px.imshow([[1, 2]], color_continuous_scale=['black', 'white'], zmin=0, zmax=9)",
            json!([{"colormap": [[0.0, "black"], [1.0, "white"]], "value_range": [0, 9]}]),
        ),
        (
            "go.Figure(go.Bar(x=['a', 'b'], y=[3, 4], width=[.2, .8], base=[1, 2], marker_color=['red', 'blue']))",
            json!([{"widths": [0.2, 0.8], "bases": [1, 2], "colors": ["red", "blue"], "color": null}]),
        ),
        (
            "px.bar(d, x='c', y='b', color='a', range_color=[0, 9], color_continuous_scale=['black', 'white'])",
            json!([{"values": [1, 2, 3], "colormap": [[0.0, "black"], [1.0, "white"]], "value_range": [0, 9]}]),
        ),
        (
            "go.Figure(go.Scatter(x=[1, 2], y=[3, 4], mode='lines+markers', line_color='green', \
             marker=dict(color=[1, 2], colorscale=['black', 'white'], cmin=0, cmax=9)))",
            json!([{"type": "line", "color": "green", "values": [1, 2], "colormap": [[0.0, "black"], [1.0, "white"]],
                "value_range": [0, 9]}]),
        ),
        (
            "go.Figure(go.Scatter(x=[1, 2], y=[3, 4], mode='lines+markers', line_color='green', marker_color='red'))",
            json!([{"color": "green", "marker_color": "red"}]),
        ),
        (
            "go.Figure(go.Scatter3d(x=[1, 2], y=[3, 4], z=[5, 6], mode='markers', marker=dict(color=['red', 'blue'])))",
            json!([{"type": "scatter", "colors": ["red", "blue"], "points": [[1, 3, 5], [2, 4, 6]]}]),
        ),
    ] {
        elements(daemon, name, cell, wanted.as_array().unwrap());
    }
}

fn of_altair(daemon: &Daemon, name: &str) {
    let two = "alt.Color('c').scale(domain=['x', 'y'], range=['red', 'blue'])";
    let marks = "mark_point(shape='square', size=100, opacity=.4)";
    for (cell, wanted) in [
        (
            "alt.Chart(d).mark_line(strokeDash=[4, 2], color='green', strokeWidth=3, point=True).encode(x='a', y='b')"
                .to_owned(),
            json!([{"color": "green", "line_style": [4, 2], "line_width": 3, "marker": "circle"}]),
        ),
        (
            format!("alt.Chart(d).{marks}.encode(x='a', y='b', color={two})"),
            json!([{"label": "x", "color": "red", "marker": "square", "marker_size": 10.0, "opacity": 0.4},
                {"label": "y", "color": "blue"}]),
        ),
        (
            format!("alt.Chart(d).mark_arc().encode(theta='b', color={two})"),
            json!([{"colors": ["red", "blue", "red"]}]),
        ),
        (
            "alt.Chart(d).mark_rect().encode(x='a:O', y='c', \
             color=alt.Color('b:Q').scale(scheme='viridis', domain=[0, 9], type='sqrt'))"
                .to_owned(),
            json!([{"colormap": "viridis", "value_range": [0, 9], "value_scale": "sqrt"}]),
        ),
        (
            "alt.Chart(d).mark_circle().encode(x='a', y='b', color=alt.Color('a:Q').scale(scheme='viridis', domain=[0, 9]))"
                .to_owned(),
            json!([{"type": "scatter", "points": [[1, 4], [2, 5], [3, 6]], "values": [1, 2, 3], "colormap": "viridis",
                "value_range": [0, 9]}]),
        ),
        (
            "alt.Chart(d).mark_bar().encode(x='c', y='b', color=alt.condition('datum.a > 1', alt.value('red'), alt.value('blue')))"
                .to_owned(),
            json!([{"type": "bar", "colors": ["blue", "red", "red"]}]),
        ),
        (
            "brush = alt.selection_interval()\nalt.Chart(d).mark_circle().encode(x='a', y='b', \
             color=alt.condition(brush, 'c', alt.value('gray')), opacity=alt.condition(brush, alt.value(1), alt.value(.2))).add_params(brush)"
                .to_owned(),
            json!([{"label": "x", "color": null, "opacity": null}, {"label": "y", "color": null}]),
        ),
        (
            "alt.Chart(d).mark_arc(innerRadius=20, outerRadius=50).encode(color='c', \
             theta=alt.Theta('b').scale(range=[-1.5707963267948966, 1.5707963267948966], domain=[0, 30]))"
                .to_owned(),
            json!([{"type": "pie", "angles": [-90.0, 90.0], "hole": 0.4,
                "points": [["x", 4.0 / 30.0], ["y", 5.0 / 30.0], ["x", 0.2]]}]),
        ),
        ("alt.Chart(d).mark_line().encode(x='a', y='b')".to_owned(), json!([{"color": null, "line_style": null}])),
    ] {
        elements(daemon, name, &cell, wanted.as_array().unwrap());
    }
}
