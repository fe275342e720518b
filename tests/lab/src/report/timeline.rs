//! A picture of a journey: a row a transport, with the time between messages, each way, over the networks and steps of the journey.
//! Readable light and dark, without scripts.

use super::table::time;
use crate::LinkName;
use crate::journey::Journey;
use crate::measure::{Stream, ms};
use crate::run::Run;
use std::fmt::Write;

const WIDTH: f64 = 1_000.0;
/// Where time begins and ends.
const LEFT: f64 = 132.0;
const RIGHT: f64 = WIDTH - 52.0;
/// Where the band of networks begins, how high it is.
const BAND: f64 = 92.0;
const BAND_HEIGHT: f64 = 20.0;
/// One transport's row, and what each way has of it.
const ROW: f64 = 92.0;
const HALF: f64 = 34.0;
/// Gaps are drawn on a logarithmic scale between these, in milliseconds.
const GAP_MIN: f64 = 10.0;
const GAP_MAX: f64 = 10_000.0;
/// A gap is told in words from so many times the pace on, and from so many milliseconds.
const TOLD_PACES: f64 = 4.0;
const TOLD_MS: f64 = 300.0;

const STYLE: &str = "\
svg{--ink:#1f2430;--soft:#5d6675;--line:#d5dae2;--paper:#ffffff;--up:#2563c9;--down:#c2570c;--wifi:#cfe8d5;--cell:#d6e0f5;--hotspot:#f3e3bf;--dark:#3a3f4b;--bad:#c01c28}\
@media(prefers-color-scheme:dark){svg{--ink:#e8eaf0;--soft:#a2abba;--line:#3a4150;--paper:#14171e;--up:#7aa7ff;--down:#ffa05c;--wifi:#1f4a2c;--cell:#243c6b;--hotspot:#57451b;--dark:#05060a;--bad:#ff6b74}}\
text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--ink)}\
.title{font-size:18px;font-weight:600}.soft{fill:var(--soft)}.small{font-size:11px}.name{font-weight:600}.bad{fill:var(--bad)}\
.mid{text-anchor:middle}.end{text-anchor:end}.up{fill:var(--up)}.down{fill:var(--down)}\
.told{font-size:11px;font-weight:600;text-anchor:middle;paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}\
.step{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}.grid{stroke:var(--line);stroke-width:1}.base{stroke:var(--soft);stroke-width:1}\
.wifi{fill:var(--wifi)}.cell{fill:var(--cell)}.hotspot{fill:var(--hotspot)}.blackout{fill:var(--dark)}.light{fill:#fff}";

/// The picture of some runs of one journey, in the order given.
#[must_use]
pub fn timeline(journey: &Journey, runs: &[&Run]) -> String {
    // Until everything was well again in all of them.
    let last = |run: &&Run| [&run.up, &run.down].iter().filter_map(|stream| stream.gaps.last()).map(|gap| gap.0).fold(run.lasted, f64::max);
    let span = runs.iter().map(last).fold(1_000.0, f64::max);
    let x = |at: f64| LEFT + (RIGHT - LEFT) * (at / span).clamp(0.0, 1.0);
    let rows_end = BAND + BAND_HEIGHT + 10.0 + ROW * runs.len() as f64;
    let legend = legend(journey);
    let height = rows_end + 44.0 + 17.0 * legend.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"{label}\"><style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"var(--paper)\"/>\n",
        label = escape(&format!("The time between messages on the journey {}: {}", journey.name, journey.about)),
    );
    text(&mut svg, 16.0, 30.0, "title", &journey.name);
    text(&mut svg, 16.0, 50.0, "soft", &journey.about);
    let pace = runs.first().map_or(0.0, |run| run.pace);
    let _ = writeln!(
        svg,
        "<text x=\"{RIGHT}\" y=\"30\" class=\"end soft\">time between messages, one sent every {}: \
         <tspan class=\"up\">▲ from the phone</tspan>  <tspan class=\"down\">▼ to the phone</tspan></text>",
        time(pace)
    );
    band(&mut svg, journey, &x);
    let middle = |row: usize| BAND + BAND_HEIGHT + 10.0 + ROW * row as f64 + ROW / 2.0;
    let noticed = journey.steps.iter().any(|step| step.is_noticed());
    for (at, run) in runs.iter().enumerate() {
        row(&mut svg, run, middle(at), span, noticed, at == 0);
    }
    for (number, step) in journey.steps.iter().enumerate() {
        let at = x(ms(step.at));
        let _ = writeln!(svg, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{rows_end}\" class=\"step\"/>", BAND - 4.0);
        text(&mut svg, at, BAND - 9.0, "mid small name", &(number + 1).to_string());
    }
    // Over the lines of the steps.
    for (at, run) in runs.iter().enumerate() {
        words(&mut svg, &run.up, middle(at), -1.0, run.pace, span);
        words(&mut svg, &run.down, middle(at), 1.0, run.pace, span);
    }
    axis(&mut svg, rows_end, span, &x);
    for (line, (left, right)) in legend.iter().enumerate() {
        let y = rows_end + 44.0 + 17.0 * line as f64;
        text(&mut svg, LEFT, y, "small soft", left);
        text(&mut svg, LEFT + (RIGHT - LEFT) / 2.0, y, "small soft", right);
    }
    svg + "</svg>\n"
}

/// The steps in words, in two columns.
fn legend(journey: &Journey) -> Vec<(String, String)> {
    let words = |(number, step): (usize, &crate::journey::Step)| format!("{}  {}, at {}", number + 1, step.label, time(ms(step.at)));
    let lines: Vec<String> = journey.steps.iter().enumerate().map(words).collect();
    let half = lines.len().div_ceil(2);
    (0..half).map(|at| (lines[at].clone(), lines.get(half + at).cloned().unwrap_or_default())).collect()
}

/// Which network was in use when, and where nothing got through.
fn band(svg: &mut String, journey: &Journey, x: &impl Fn(f64) -> f64) {
    text(svg, 16.0, BAND + 14.0, "soft small", "network");
    // Where it begins, its class, what it is called.
    let mut parts: Vec<(f64, &'static str, String)> = Vec::new();
    let begins = std::iter::once(0.0).chain(journey.steps.iter().map(|step| ms(step.at)));
    for (steps, begin) in begins.enumerate() {
        let (settings, used) = journey.after(steps);
        let of = settings[used[0] as usize];
        let (class, label) = match (of.up.blackout, of.down.blackout) {
            (false, false) => (used[0].name(), used.iter().map(|link| of_people(*link)).collect::<Vec<_>>().join(" + ")),
            (true, true) => ("blackout", "blackout".into()),
            (true, false) => ("blackout", "blackout ▲".into()),
            (false, true) => ("blackout", "blackout ▼".into()),
        };
        // The same network, a little better or worse, is one part.
        if parts.last().is_none_or(|(_, _, before)| *before != label) {
            parts.push((begin, class, label));
        }
    }
    for (at, (begin, class, label)) in parts.iter().enumerate() {
        let (from, to) = (x(*begin), parts.get(at + 1).map_or(RIGHT, |(next, ..)| x(*next)));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{BAND}\" width=\"{:.1}\" height=\"{BAND_HEIGHT}\" class=\"{class}\"/>",
            (to - from).max(0.0)
        );
        // About seven units a letter.
        if to - from > 7.0 * label.chars().count() as f64 {
            text(svg, (from + to) / 2.0, BAND + 14.0, if *class == "blackout" { "mid small light" } else { "mid small" }, label);
        }
    }
}

fn of_people(link: LinkName) -> &'static str {
    match link {
        LinkName::Wifi => "Wi-Fi",
        LinkName::Cell => "cell",
        LinkName::Hotspot => "hotspot",
    }
}

/// How high a gap is drawn.
fn level(gap: f64) -> f64 {
    HALF * ((gap.clamp(GAP_MIN, GAP_MAX) / GAP_MIN).log10() / (GAP_MAX / GAP_MIN).log10())
}

/// One run: its name, both ways above and below a line, and what is worth words.
fn row(svg: &mut String, run: &Run, middle: f64, span: f64, noticed: bool, first: bool) {
    text(svg, 16.0, middle - 4.0, "name", &run.transport);
    let told = match (run.faults.is_empty(), noticed, run.reported) {
        (false, ..) => ("PROMISE BROKEN", "small bad"),
        (_, false, _) => ("", ""),
        (_, _, true) => ("change reported", "small soft"),
        (_, _, false) => ("not reported", "small soft"),
    };
    text(svg, 16.0, middle + 12.0, told.1, told.0);
    for (gap, label) in [(100.0, "0.1 s"), (1_000.0, "1 s"), (10_000.0, "10 s")] {
        for sign in [-1.0, 1.0] {
            let y = middle + sign * level(gap);
            let _ = writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" class=\"grid\"/>");
            if first {
                text(svg, RIGHT + 6.0, y + 4.0, "small soft", label);
            }
        }
    }
    curve(svg, &run.up, middle, -1.0, "up", span);
    curve(svg, &run.down, middle, 1.0, "down", span);
    let _ = writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{middle}\" y2=\"{middle}\" class=\"base\"/>");
}

/// The gaps of one way as an area: at each moment as high as the gap that it lies in.
fn curve(svg: &mut String, stream: &Stream, middle: f64, sign: f64, class: &str, span: f64) {
    let columns = (RIGHT - LEFT) as usize;
    let mut levels = vec![0.0f64; columns + 1];
    for (at, gap) in &stream.gaps {
        let column = |at: f64| ((at / span).clamp(0.0, 1.0) * columns as f64) as usize;
        for reached in &mut levels[column(at - gap)..=column(*at)] {
            *reached = reached.max(level(*gap));
        }
    }
    let mut path = format!("M{LEFT} {middle}");
    let mut before = 0.0;
    for (column, reached) in levels.iter().enumerate() {
        if (reached - before).abs() > f64::EPSILON {
            let _ = write!(path, "H{:.0}V{:.1}", LEFT + column as f64, middle + sign * reached);
            before = *reached;
        }
    }
    let _ = writeln!(svg, "<path d=\"{path}H{RIGHT}V{middle}Z\" class=\"{class}\"/>");
}

/// The long gaps in words, as far as there is room.
fn words(svg: &mut String, stream: &Stream, middle: f64, sign: f64, pace: f64, span: f64) {
    let mut long: Vec<(f64, f64)> = stream.gaps.iter().copied().filter(|(_, gap)| *gap > TOLD_MS.max(TOLD_PACES * pace)).collect();
    long.sort_by(|one, other| other.1.total_cmp(&one.1));
    let mut taken: Vec<f64> = Vec::new();
    for (at, gap) in long {
        let center = (LEFT + (RIGHT - LEFT) * ((at - gap / 2.0) / span)).clamp(LEFT + 18.0, RIGHT - 18.0);
        if taken.iter().all(|other| (other - center).abs() > 44.0) {
            taken.push(center);
            // Beyond the end of its bar, but never into the next row.
            let end = (level(gap) + 4.0).min(HALF - 1.0);
            text(svg, center, middle + sign * end + if sign > 0.0 { 9.0 } else { 0.0 }, "told", &time(gap));
        }
    }
}

fn axis(svg: &mut String, y: f64, span: f64, x: &impl Fn(f64) -> f64) {
    let step = [1u64, 2, 5, 10, 20, 60].into_iter().find(|step| span / 1_000.0 / *step as f64 <= 14.0).unwrap_or(300);
    let mut second = 0;
    while second as f64 * 1_000.0 <= span {
        let at = x(second as f64 * 1_000.0);
        let _ = writeln!(svg, "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{y}\" y2=\"{}\" class=\"base\"/>", y + 4.0);
        text(svg, at, y + 17.0, "mid small soft", &format!("{second} s"));
        second += step;
    }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, words: &str) {
    if !words.is_empty() {
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(words));
    }
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
