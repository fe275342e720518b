//! A picture of how some times are distributed: a row each, a dot a time, on a logarithmic scale.

use super::table::time;
use crate::measure::Quantiles;
use std::fmt::Write;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = WIDTH - 120.0;
const TOP: f64 = 84.0;
const ROW: f64 = 46.0;

const STYLE: &str = "\
svg{--ink:#1f2430;--soft:#5d6675;--line:#d5dae2;--paper:#ffffff;--up:#2563c9;--down:#c2570c}\
@media(prefers-color-scheme:dark){svg{--ink:#e8eaf0;--soft:#a2abba;--line:#3a4150;--paper:#14171e;--up:#7aa7ff;--down:#ffa05c}}\
text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink)}\
.title{font-size:18px;font-weight:600}.soft{fill:var(--soft)}.small{font-size:11px}.name{font-weight:600}.mid{text-anchor:middle}\
.end{text-anchor:end}.up{fill:var(--up)}.down{fill:var(--down)}circle{fill-opacity:.45}.grid{stroke:var(--line)}\
.median{stroke:var(--ink);stroke-width:2}";

/// The picture of rows: a name, and times in milliseconds from the phone and to it.
#[must_use]
pub fn distribution(title: &str, about: &str, rows: &[(String, Vec<f64>, Vec<f64>)]) -> String {
    let all = || rows.iter().flat_map(|(_, up, down)| up.iter().chain(down)).copied();
    let low = all().fold(f64::INFINITY, f64::min).clamp(1.0, 1_000.0);
    let high = all().fold(low * 10.0, f64::max);
    let x = |ms: f64| LEFT + (RIGHT - LEFT) * ((ms.max(low) / low).log10() / (high / low).log10());
    let end = TOP + ROW * rows.len() as f64;
    let height = end + 34.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{title}: {about}\"><style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\n\
         <text x=\"16\" y=\"30\" class=\"title\">{title}</text><text x=\"16\" y=\"50\" class=\"soft\">{about}</text>\
         <text x=\"{RIGHT}\" y=\"30\" class=\"end soft\">a dot a run, a bar at the median: <tspan class=\"up\">● from the phone</tspan>  \
         <tspan class=\"down\">● to the phone</tspan></text><text x=\"{}\" y=\"70\" class=\"small soft\">p50 / p99</text>\n",
        RIGHT + 14.0
    );
    for tick in [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0] {
        if (low..=high).contains(&tick) {
            let at = x(tick);
            let _ = writeln!(svg, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{end}\" class=\"grid\"/>", TOP - 8.0);
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{:.1}\" class=\"mid small soft\">{}</text>", end + 16.0, time(tick));
        }
    }
    for (number, (name, up, down)) in rows.iter().enumerate() {
        let middle = TOP + ROW * number as f64 + ROW / 2.0 - 4.0;
        let _ = writeln!(svg, "<text x=\"16\" y=\"{:.1}\" class=\"name\">{name}</text>", middle + 4.0);
        for (times, class, shift) in [(up, "up", -9.0), (down, "down", 9.0)] {
            for (at, ms) in times.iter().enumerate() {
                // A little up and down, so that dots of the same time are seen as several.
                let y = middle + shift + (at % 5) as f64 * 2.0 - 4.0;
                let _ = writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"2.5\" class=\"{class}\"/>", x(*ms));
            }
            let of = Quantiles::of(times.iter().copied());
            if of.count > 0 {
                let at = x(of.p50);
                let (from, to) = (middle + shift - 8.0, middle + shift + 8.0);
                let _ = writeln!(svg, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{from:.1}\" y2=\"{to:.1}\" class=\"median\"/>");
                let words = format!("{} / {}", time(of.p50), time(of.p99));
                let _ =
                    writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" class=\"small {class}\">{words}</text>", RIGHT + 14.0, middle + shift + 4.0);
            }
        }
    }
    svg + "</svg>\n"
}
