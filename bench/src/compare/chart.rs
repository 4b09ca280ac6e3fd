//! Pictures: horizontal bars in panels, one panel for each kind of work, as SVG. Pure.

use super::spread::Spread;
use crate::figures::short;
use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const LABELS: f64 = 190.0;
/// Room behind the longest bar for its value.
const VALUES: f64 = 150.0;
/// Above the first panel.
const TOP: f64 = 80.0;
/// Half the height of a whisker's ends.
const WHISKER: f64 = 4.0;
const BAR: f64 = 18.0;
const GAP: f64 = 5.0;
const HEAD: f64 = 34.0;
const FOOT: f64 = 46.0;

/// One panel: bars from 0 to the largest value.
pub struct Panel {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// As long as the median, with a line from the least to the greatest.
pub struct Bar {
    pub label: String,
    pub value: Spread,
    pub color: &'static str,
}

/// The picture. The two lines of `about` stand below the title, `unit` below each axis.
pub fn svg(title: &str, about: &[&str; 2], unit: &str, panels: &[Panel]) -> String {
    let height: f64 = TOP + panels.iter().map(panel_height).sum::<f64>();
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"28\" font-size=\"18\" font-weight=\"bold\">{}</text>\n\
         <text x=\"12\" y=\"46\" font-size=\"11\" fill=\"#555\">{}</text>\n\
         <text x=\"12\" y=\"61\" font-size=\"11\" fill=\"#555\">{}</text>\n",
        escaped(title),
        escaped(about[0]),
        escaped(about[1])
    );
    let mut top = TOP;
    for panel in panels {
        write_panel(&mut out, panel, unit, top);
        top += panel_height(panel);
    }
    out + "</svg>\n"
}

fn panel_height(panel: &Panel) -> f64 {
    HEAD + panel.bars.len() as f64 * (BAR + GAP) + FOOT
}

fn write_panel(out: &mut String, panel: &Panel, unit: &str, top: f64) {
    let largest = panel.bars.iter().map(|bar| bar.value.most).fold(0.0, f64::max);
    let step = tick_step(largest);
    let end = (largest / step).ceil().max(1.0) * step;
    let x = |value: f64| LABELS + value / end * (WIDTH - LABELS - VALUES);
    let (first, bottom) = (top + HEAD, top + panel_height(panel) - FOOT);
    let _ = writeln!(
        out,
        "<text x=\"12\" y=\"{:.0}\" font-size=\"14\" font-weight=\"bold\">{}</text>",
        top + 20.0,
        escaped(&panel.title)
    );
    for number in 0..=(end / step).round() as usize {
        let value = number as f64 * step;
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" y1=\"{first:.0}\" x2=\"{0:.1}\" y2=\"{bottom:.0}\" stroke=\"#ddd\"/>\
             <text x=\"{0:.1}\" y=\"{1:.0}\" text-anchor=\"middle\" fill=\"#555\">{2}</text>",
            x(value),
            bottom + 14.0,
            tick(value)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
        (x(0.0) + x(end)) / 2.0,
        bottom + 30.0,
        escaped(unit)
    );
    for (number, bar) in panel.bars.iter().enumerate() {
        let y = first + number as f64 * (BAR + GAP) + GAP / 2.0;
        let text = y + BAR - 5.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
            LABELS - 8.0,
            escaped(&bar.label),
            (x(bar.value.median) - LABELS).max(1.0),
            bar.color,
            x(bar.value.most) + 8.0,
            bar.value.with(short)
        );
        if bar.value.rounds > 1 {
            let (least, most, middle) = (x(bar.value.least), x(bar.value.most), y + BAR / 2.0);
            let (above, below) = (middle - WHISKER, middle + WHISKER);
            let _ = writeln!(
                out,
                "<path d=\"M{least:.1} {above:.1}V{below:.1}M{least:.1} {middle:.1}H{most:.1}M{most:.1} {above:.1}V{below:.1}\" \
                 stroke=\"#222\" fill=\"none\"/>"
            );
        }
    }
    let _ = writeln!(
        out,
        "<line x1=\"{LABELS}\" y1=\"{first:.0}\" x2=\"{LABELS}\" y2=\"{bottom:.0}\" stroke=\"#555\"/>"
    );
}

/// 1, 2 or 5 times a power of ten, so that four to eight ticks make an axis.
fn tick_step(largest: f64) -> f64 {
    if largest <= 0.0 || !largest.is_finite() {
        return 1.0;
    }
    let raw = largest / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw);
    factor.unwrap_or(10.0) * power
}

fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps() {
        for (largest, step) in
            [(36_301.0, 10_000.0), (14_288.0, 5_000.0), (3.18, 1.0), (0.071, 0.02), (0.0, 1.0)]
        {
            assert!((tick_step(largest) - step).abs() < 1e-9, "{largest}: {}", tick_step(largest));
        }
        assert_eq!((tick(10_000.0), tick(0.02), tick(0.0)), ("10000".into(), "0.02".into(), "0".into()));
    }

    #[test]
    fn bars_are_in_proportion_and_texts_are_escaped() {
        let bar = |label: &str, values: &[f64]| Bar {
            label: label.to_owned(),
            value: Spread::of(values).unwrap(),
            color: "#000",
        };
        let bars = vec![bar("x", &[1_000.0]), bar("y", &[400.0, 500.0, 900.0])];
        let panel = Panel { title: "a < b & c".into(), bars };
        let text = svg("title", &["where & when", "how"], "messages/s", &[panel]);
        assert!(text.contains("where &amp; when") && text.contains("500 (400–900)"), "{text}");
        assert_eq!(text.matches("<path").count(), 1, "one round has no range: {text}");
        assert!(text.contains("a &lt; b &amp; c") && text.contains(">messages/s<"), "{text}");
        let widths: Vec<f64> = text
            .lines()
            .filter_map(|line| {
                line.split("height=\"18\"").next()?.rsplit_once("width=\"")?.1.strip_suffix("\" ")
            })
            .filter_map(|width| width.parse().ok())
            .collect();
        assert_eq!(widths.len(), 2, "{text}");
        assert!((widths[0] - 2.0 * widths[1]).abs() < 0.2, "{widths:?}");
        assert!(text.ends_with("</svg>\n"));
    }
}
