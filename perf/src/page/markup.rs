//! SVG and escapes.

use std::fmt::Write as _;

/// Colours in style.css.
const COLOURS: usize = 8;
/// Widths of a text of `style.css`'s plots are estimated: a sans serif's figures and letters are about so wide at 12 px.
const LETTER: f64 = 6.9;

/// Text as element content or as a quoted attribute. Control characters, which XML has not, become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// How wide a text is, about.
#[expect(clippy::cast_precision_loss, reason = "a label")]
pub(super) fn width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// A text that is not wider; what is cut is replaced by an ellipsis.
pub(super) fn cut(text: &str, most: f64) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        if width(&short) + 2.0 * LETTER > most {
            break;
        }
        short.push(c);
    }
    short.trim_end().to_owned() + "…"
}

/// The class that gives series `i` its colour; lines of later series have other dashes too.
pub(super) fn colour(i: usize) -> String {
    format!("c{}", i % COLOURS)
}

/// Where a text has its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing.
#[derive(Debug)]
pub(super) struct Svg {
    out: String,
}

impl Svg {
    /// A new one, which `label` describes to whoever can't see it.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        let mut out = String::new();
        let _ =
            writeln!(out, "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">", escape(label));
        Self { out }
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let _ = writeln!(
            self.out,
            "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A rectangle by its upper left corner and its size, with a hover title.
    pub(super) fn rect(&mut self, class: &str, corner: (f64, f64), size: (f64, f64), title: &str) {
        let _ = writeln!(
            self.out,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            corner.0,
            corner.1,
            size.0.max(0.0),
            size.1.max(0.0),
            escape(title)
        );
    }

    /// Text on its base line.
    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.out,
            "<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            at.0,
            at.1,
            escape(text)
        );
    }

    /// A line through points. One point alone is a dot.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)], title: &str) {
        let _ = write!(self.out, "<path class=\"{class}\" d=\"");
        for (i, (x, y)) in points.iter().enumerate() {
            let _ = write!(self.out, "{}{x:.1} {y:.1}", if i == 0 { "M" } else { " L" });
        }
        if let [(x, y)] = points {
            let _ = write!(self.out, " L{x:.1} {y:.1}");
        }
        let _ = writeln!(self.out, "\"><title>{}</title></path>", escape(title));
    }

    /// The element.
    pub(super) fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}

/// A list of names with their colours: as `line`s or as areas.
pub(super) fn legend<'a>(names: impl Iterator<Item = &'a str>, line: bool) -> String {
    let mut out = String::from("<ul class=\"legend\">\n");
    for (i, name) in names.enumerate() {
        let colour = colour(i);
        let sample = if line {
            format!("<path class=\"series {colour} d{i}\" d=\"M1 7 L29 7\"/>")
        } else {
            format!("<rect class=\"bar {colour}\" x=\"8\" y=\"1\" width=\"14\" height=\"12\"/>")
        };
        let _ = writeln!(
            out,
            "<li><svg viewBox=\"0 0 30 14\" width=\"30\" height=\"14\" aria-hidden=\"true\">{sample}</svg>{}</li>",
            escape(name)
        );
    }
    out.push_str("</ul>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_a_browser_is_escaped() {
        assert_eq!(escape("<b a='1' c=\"2\">&amp;"), "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;amp;");
        assert_eq!(escape("4 KiB, µs\u{0}\u{1b}"), "4 KiB, µs\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_label_is_cut_where_it_does_not_fit() {
        assert_eq!(cut("short", 100.0), "short");
        let short = cut("a label that is much too long for its place", 100.0);
        assert!(short.ends_with('…') && width(&short) <= 100.0, "{short}");
        assert_eq!(cut("ab", 0.0), "…");
    }
}
