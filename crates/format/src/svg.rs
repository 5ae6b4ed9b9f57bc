//! A map of physical memory as an SVG image.

use crate::human;
use kho::{PhysAddr, PhysRange, RangeSet};
use std::fmt::Write;

/// An area of the map. Later areas are drawn over earlier ones.
#[derive(Clone, Debug)]
pub struct Area<'a> {
    /// Physical addresses of the area.
    pub range: PhysRange,
    /// Kind of the area, for the legend.
    pub kind: &'a str,
    /// Colour of the area, as in CSS.
    pub colour: &'a str,
}

/// Most rows of the map.
const ROWS: u64 = 16;
/// Width of the column of addresses left of the rows, in pixels. The constants below are in pixels too.
const LEFT: f64 = 118.0;
const WIDTH: f64 = 860.0;
const ROW: f64 = 26.0;
const GAP: f64 = 6.0;
const TOP: f64 = 46.0;
/// Least width of an area, in pixels, so that even the smallest one can be seen.
const LEAST: f64 = 2.0;

/// Draws `parts` over `ram`. Every row shows the same number of bytes, a power of two; rows without RAM are left out.
#[allow(clippy::cast_precision_loss, reason = "pixels need no more")]
pub fn draw(title: &str, ram: &RangeSet, parts: &[Area<'_>]) -> String {
    let mut row_bytes = 64 * kho::PAGE_SIZE;
    while rows(ram, row_bytes).len() as u64 > ROWS {
        match row_bytes.checked_mul(2) {
            Some(next) => row_bytes = next,
            None => break,
        }
    }
    let rows = rows(ram, row_bytes);
    let mut body = String::new();
    let mut y = TOP;
    let mut previous: Option<u64> = None;
    for start in &rows {
        if previous.is_some_and(|previous| previous.checked_add(row_bytes) != Some(*start)) {
            let _ = writeln!(
                body,
                r##"<text x="{}" y="{:.1}" class="gap">no RAM between</text>"##,
                LEFT + 4.0,
                y + 9.0
            );
            y += 16.0;
        }
        previous = Some(*start);
        let Ok(row) = PhysRange::new(PhysAddr::new(*start), row_bytes) else {
            continue;
        };
        let _ = writeln!(
            body,
            r#"<text x="{:.1}" y="{:.1}" class="addr">{start:#x}</text>"#,
            LEFT - 8.0,
            y + ROW * 0.68
        );
        let mut rect = |range: PhysRange, colour: &str, kind: &str, whole: PhysRange| {
            let Some(piece) = range.intersection(row) else {
                return;
            };
            let scale = WIDTH / row_bytes as f64;
            let width = (piece.len() as f64 * scale).max(LEAST);
            let from = (piece.start().get() - start) as f64 * scale;
            let x = LEFT + from.min(WIDTH - width);
            let _ = writeln!(
                body,
                r#"<rect x="{x:.2}" y="{y:.1}" width="{width:.2}" height="{ROW}" fill="{colour}"><title>{} {whole} {}</title></rect>"#,
                escaped(kind),
                human::bytes(whole.len())
            );
        };
        for range in ram.iter() {
            rect(range, "#e4e7eb", "RAM", range);
        }
        for part in parts {
            rect(part.range, part.colour, part.kind, part.range);
        }
        y += ROW + GAP;
    }
    let mut legend: Vec<(&str, &str, u64)> = vec![("free RAM", "#e4e7eb", 0)];
    for part in parts {
        match legend.iter_mut().find(|(kind, ..)| *kind == part.kind) {
            Some((.., bytes)) => *bytes = bytes.saturating_add(part.range.len()),
            None => legend.push((part.kind, part.colour, part.range.len())),
        }
    }
    y += 10.0;
    let column = (LEFT + WIDTH) / 4.0;
    for (place, (kind, colour, bytes)) in legend.iter().enumerate() {
        let x = 20.0 + (place % 4) as f64 * column;
        let line = y + (place / 4) as f64 * 22.0;
        let size = if *bytes == 0 {
            String::new()
        } else {
            format!(" {}", human::bytes(*bytes))
        };
        let _ = writeln!(
            body,
            r#"<rect x="{x:.1}" y="{line:.1}" width="14" height="14" fill="{colour}"/><text x="{:.1}" y="{:.1}">{}{size}</text>"#,
            x + 20.0,
            line + 11.5,
            escaped(kind)
        );
    }
    let height = y + (legend.len().div_ceil(4)) as f64 * 22.0 + 12.0;
    let width = LEFT + WIDTH + 20.0;
    format!(
        concat!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w:.0}" height="{h:.0}" viewBox="0 0 {w:.0} {h:.0}">"#,
            "\n<style>text{{font:13px sans-serif;fill:#1f2933}}.addr{{text-anchor:end;font-family:monospace;font-size:12px}}",
            ".gap{{font-size:10px;fill:#7b8794}}.title{{font-size:15px;font-weight:bold}}</style>\n",
            r##"<rect width="100%" height="100%" fill="#ffffff"/>"##,
            "\n",
            r#"<text x="20" y="26" class="title">{title}</text><text x="{right:.0}" y="26" text-anchor="end">one row is {row}</text>"#,
            "\n{body}</svg>\n"
        ),
        w = width,
        h = height,
        right = LEFT + WIDTH,
        title = escaped(title),
        row = human::bytes(row_bytes),
        body = body
    )
}

/// Starts of the rows that have RAM.
fn rows(ram: &RangeSet, row: u64) -> Vec<u64> {
    let mut out: Vec<u64> = Vec::new();
    for range in ram.iter() {
        let mut start = range.start().get() / row * row;
        if let Some(last) = out.last()
            && start <= *last
        {
            start = match last.checked_add(row) {
                Some(next) => next,
                None => continue,
            };
        }
        while start < range.end().get() {
            out.push(start);
            // Callers double the row until the list is short, so a longer list is not needed.
            if out.len() as u64 > ROWS {
                return out;
            }
            match start.checked_add(row) {
                Some(next) => start = next,
                None => break,
            }
        }
    }
    out
}

fn escaped(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            other => other.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    #[test]
    fn small_parts_are_seen_and_holes_are_not() {
        let ram = RangeSet::from_ranges([
            range(0, 0xa_0000),
            range(0x10_0000, 0x7ff0_0000),
            range(1 << 36, 4096),
        ])
        .unwrap();
        let part = |range, kind, colour| Area {
            range,
            kind,
            colour,
        };
        let parts = [
            part(range(0x100_0000, 0x4000_0000), "scratch", "#abc"),
            part(range(0x7000_0000, 4096), "state <tree>", "#f00"),
        ];
        let svg = draw("a & b", &ram, &parts);
        assert!(svg.contains("a &amp; b") && svg.contains("state &lt;tree&gt;"));
        assert!(svg.contains("no RAM between"));
        assert!(
            svg.contains(r##"width="2.00" height="26" fill="#f00""##),
            "{svg}"
        );
        assert!(svg.matches("class=\"addr\"").count() <= 16);
        assert!(svg.contains("scratch 1.00 GiB"));
    }

    #[test]
    fn a_tebibyte_is_a_page() {
        let ram = RangeSet::from_ranges([range(0, 1 << 40)]).unwrap();
        let svg = draw("x", &ram, &[]);
        assert!(svg.contains("one row is 64.0 GiB"), "{svg}");
    }
}
