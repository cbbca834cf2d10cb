//! Draws the report as an SVG image.
//!
//! No plotting library is used: the code for two diagrams of lines and bars is shorter than the
//! configuration of a library, and their labels remain text that a browser can search.

use std::fmt::Write as _;

use crate::report::Report;
use crate::sections::latency;
use crate::statistics::number;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
/// The margins for the labels of the axes: left, top, right, bottom.
const MARGIN: [f64; 4] = [70.0, 46.0, 190.0, 46.0];
const COLOURS: [&str; 11] =
    ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0", "#30343c"];

/// A line: its name, and the median, minimum and maximum of each column.
struct Line {
    name: String,
    points: Vec<Option<(f64, f64, f64)>>,
}

/// Draws the available figures: rates by clients, times by rate, and CPU time by process.
pub fn svg(report: &Report) -> String {
    let mut parts = Vec::new();
    for table in report.tables().into_iter().filter(|table| table.starts_with("throughput")) {
        let rows = ["ceiling: orders a second", "end to end: orders a second"];
        parts.push(lines(report, table, &format!("Orders a second by clients ({table})"), &rows));
        parts.push(bars(report, table));
    }
    if report.tables().contains(&latency::OPEN) {
        let rows = ["p50, ms", "p99, ms"];
        parts.push(lines(report, latency::OPEN, "POST to response by orders a second, ms", &rows));
    }
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        HEIGHT * parts.len().max(1) as f64
    );
    for (place, part) in parts.iter().enumerate() {
        let _ = writeln!(text, "<g transform=\"translate(0 {})\">\n{part}</g>", HEIGHT * place as f64);
    }
    text + "</svg>\n"
}

/// Draws lines over the columns of a table. A vertical stroke at each point shows the spread.
fn lines(report: &Report, table: &str, title: &str, rows: &[&str]) -> String {
    let columns = report.columns(table);
    let line = |row: &&str| Line {
        // The title of the diagram already names the quantity.
        name: row.split_once(": ").map_or(*row, |(side, _)| side).to_owned(),
        points: columns
            .iter()
            .map(|column| {
                let (least, greatest) = report.spread(table, row, column)?;
                Some((report.median(table, row, column)?, least, greatest))
            })
            .collect(),
    };
    let lines: Vec<Line> = rows.iter().map(line).collect();
    let most = lines.iter().flat_map(|line| line.points.iter().flatten()).map(|point| point.2).fold(0.0, f64::max);
    let top = ceiling(most);
    let x = |at: usize| MARGIN[0] + (at as f64 + 0.5) * inner_width() / columns.len().max(1) as f64;
    let mut text = frame(title, top);
    for (at, column) in columns.iter().enumerate() {
        let _ = writeln!(text, "{}", label(x(at), HEIGHT - MARGIN[3] + 18.0, "middle", column));
    }
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let points = line.points.iter().enumerate().filter_map(|(at, point)| Some((x(at), (*point)?)));
        let mut path = String::new();
        for (x, (median, least, greatest)) in points {
            let (y, low, high) = (y(median, top), y(least, top), y(greatest, top));
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { " L" });
            let _ = writeln!(
                text,
                "<path d=\"M{x:.1} {low:.1} V{high:.1}\" stroke=\"{colour}\" stroke-width=\"5\" opacity=\"0.4\"/>"
            );
            let _ = writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
        let _ = writeln!(text, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        text.push_str(&legend(number, &line.name, colour));
    }
    text
}

/// Draws a bar for each column and side: the CPU time of an order, by process.
fn bars(report: &Report, table: &str) -> String {
    let columns = report.columns(table);
    let name = |row: &str| Some(row.split_once(": CPU of ")?.1.strip_suffix(", ms an order")?.to_owned());
    let mut names: Vec<String> =
        report.rows(table).into_iter().filter_map(name).filter(|name| !name.starts_with("all but")).collect();
    names.sort();
    names.dedup();
    let sides = ["ceiling", "end to end"];
    let value = |side: &str, name: &str, column: &str| {
        report.median(table, &format!("{side}: CPU of {name}, ms an order"), column).unwrap_or_default()
    };
    let total = |side: &str, column: &str| names.iter().map(|name| value(side, name, column)).sum::<f64>();
    let totals = columns.iter().flat_map(|column| sides.map(|side| total(side, column)));
    let top = ceiling(totals.fold(0.0, f64::max));
    let mut text = frame(&format!("CPU an order, ms; left the ceiling, right end to end ({table})"), top);
    let slot = inner_width() / columns.len().max(1) as f64;
    let width = (slot / 3.0).min(40.0);
    for (at, column) in columns.iter().enumerate() {
        let middle = MARGIN[0] + (at as f64 + 0.5) * slot;
        let _ = writeln!(text, "{}", label(middle, HEIGHT - MARGIN[3] + 18.0, "middle", column));
        for (side, x) in sides.into_iter().zip([middle - width - 2.0, middle + 2.0]) {
            let mut below = 0.0;
            for (number, name) in names.iter().enumerate() {
                let share = value(side, name, column);
                let (high, low) = (y(below + share, top), y(below, top));
                let colour = COLOURS[number % COLOURS.len()];
                let _ = writeln!(
                    text,
                    "<rect x=\"{x:.1}\" y=\"{high:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}: {}</title></rect>",
                    low - high,
                    escaped(name),
                    crate::statistics::number(share)
                );
                below += share;
            }
        }
    }
    for (number, name) in names.iter().enumerate() {
        text.push_str(&legend(number, name, COLOURS[number % COLOURS.len()]));
    }
    text
}

/// Draws the title, the vertical axis from zero, and four grid lines.
fn frame(title: &str, top: f64) -> String {
    let mut text =
        format!("<text x=\"{}\" y=\"24\" font-size=\"14\" font-weight=\"bold\">{}</text>\n", MARGIN[0], escaped(title));
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let y = y(value, top);
        let end = MARGIN[0] + inner_width();
        let _ = writeln!(text, "<path d=\"M{} {y:.1} H{end:.1}\" stroke=\"#ddd\"/>", MARGIN[0]);
        let _ = writeln!(text, "{}", label(MARGIN[0] - 8.0, y + 4.0, "end", &number(value)));
    }
    text
}

fn legend(number: usize, name: &str, colour: &str) -> String {
    let (x, y) = (WIDTH - MARGIN[2] + 14.0, MARGIN[1] + 18.0 * number as f64);
    let text = label(x + 16.0, y + 9.0, "start", name);
    format!("<rect x=\"{x}\" y=\"{y}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\n{text}\n")
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn inner_width() -> f64 {
    WIDTH - MARGIN[0] - MARGIN[2]
}

fn y(value: f64, top: f64) -> f64 {
    HEIGHT - MARGIN[3] - value / top * (HEIGHT - MARGIN[1] - MARGIN[3])
}

/// Rounds up to a round number, such as 25 or 60.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|bound| *bound >= value)
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sections::throughput;

    #[test]
    fn axes_end_at_a_round_number() {
        assert_eq!([0.0, 1.0, 7.5, 145.0, 90.0].map(ceiling), [1.0, 1.0, 8.0, 150.0, 100.0]);
    }

    #[test]
    fn only_measured_figures_are_drawn() {
        let mut report = Report::default();
        assert!(!svg(&report).contains("<circle"));
        let table = throughput::table("postgres");
        report.add(&table, "ceiling: orders a second", "1 clients", 100.0);
        report.add(&table, "ceiling: CPU of <etcd>, ms an order", "1 clients", 2.0);
        let text = svg(&report);
        assert_eq!(text.matches("<circle").count(), 1);
        assert!(text.contains("&lt;etcd>") && !text.contains("<etcd>"), "{text}");
    }
}
