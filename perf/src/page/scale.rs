//! Axes: where a figure lies, and which ticks are round.

/// Tick labels on a logarithmic axis of more decades than this are powers of ten only.
const FINE_DECADES: f64 = 3.0;
/// Percentiles with a tick; from 99.9 on each nine has one.
const PERCENTILES: [f64; 4] = [0.0, 50.0, 90.0, 99.0];
/// An axis of percentiles ends here at the earliest, and at the latest: 1 in 10 thousand, 1 in a million.
const NINES: (f64, f64) = (4.0, 6.0);

/// An axis.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    bend: fn(f64) -> f64,
    /// Figures with a label.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Scale {
    /// From 0 to a round figure that is not below `most`.
    pub(super) fn linear(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = round_step(most / 5.0);
        let high = (most / step - 1e-9).ceil() * step;
        Self { low: 0.0, high, bend: |x| x, ticks: linear_ticks(step, high) }
    }

    /// From 0 to just `most`: time.
    pub(super) fn exact(most: f64) -> Self {
        let high = if most > 0.0 { most } else { 1.0 };
        Self { low: 0.0, high, bend: |x| x, ticks: linear_ticks(round_step(high / 10.0), high) }
    }

    /// Logarithmic, from one of 1, 2, 5 times a power of ten to another one.
    pub(super) fn log(least: f64, most: f64) -> Self {
        let (low, mut high) = (one_two_five(least, f64::floor), one_two_five(most, f64::ceil));
        if high <= low {
            high = one_two_five(low * 1.01, f64::ceil);
        }
        let fine = (high / low).log10() <= FINE_DECADES + 1e-9;
        let mut ticks = Vec::new();
        let mut decade = low.log10().floor();
        while decade <= high.log10() + 1e-9 {
            for figure in [1.0, 2.0, 5.0] {
                let at = figure * 10_f64.powf(decade);
                if (low * 0.999..=high * 1.001).contains(&at) && (fine || figure < 1.5) {
                    ticks.push((at, figure_words(at)));
                }
            }
            decade += 1.0;
        }
        Self { low: low.log10(), high: high.log10(), bend: f64::log10, ticks }
    }

    /// Percentiles up to `most`, by nines.
    pub(super) fn percentiles(most: f64) -> Self {
        let high = nines(most).clamp(NINES.0, NINES.1);
        let mut ticks: Vec<_> = PERCENTILES.into_iter().map(|p| (p, format!("{p} %"))).collect();
        for digits in 1..=4_i32 {
            let at = 100.0 - 10_f64.powi(-digits);
            if nines(at) <= high + 1e-6 {
                ticks.push((at, format!("{at:.*} %", usize::try_from(digits).unwrap_or(0))));
            }
        }
        Self { low: 0.0, high, bend: nines, ticks }
    }

    /// Where a figure lies: 0 at the axis' beginning, 1 at its end. None: it is not on the axis.
    pub(super) fn at(&self, figure: f64) -> Option<f64> {
        let share = ((self.bend)(figure) - self.low) / (self.high - self.low);
        (-1e-6..=1.0 + 1e-6).contains(&share).then(|| share.clamp(0.0, 1.0))
    }
}

/// 0 % is 0, 90 % is 1, 99 % is 2; 100 % is infinite.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// The least of 1, 2, 5 times a power of ten that is not below.
fn round_step(at_least: f64) -> f64 {
    one_two_five(at_least, f64::ceil)
}

/// Of 1, 2, 5 times a power of ten the neighbour of a positive figure, or itself: above (`ceil`) or below (`floor`).
fn one_two_five(figure: f64, towards: fn(f64) -> f64) -> f64 {
    let decade = 10_f64.powf(figure.log10().floor());
    let mantissa = figure / decade;
    let steps = [1.0, 2.0, 5.0, 10.0];
    let found = if towards(0.5) > 0.5 {
        steps.into_iter().find(|step| mantissa <= step * (1.0 + 1e-9))
    } else {
        steps.into_iter().rev().find(|step| mantissa >= step * (1.0 - 1e-9))
    };
    found.unwrap_or(1.0) * decade
}

fn linear_ticks(step: f64, high: f64) -> Vec<(f64, String)> {
    let decimals = (0..9_u8).find(|d| {
        let scaled = step * 10_f64.powi((*d).into());
        (scaled - scaled.round()).abs() < 1e-6
    });
    let mut ticks = Vec::new();
    let mut i = 0.0;
    while i * step <= high * (1.0 + 1e-9) {
        ticks.push((i * step, grouped(&format!("{:.*}", usize::from(decimals.unwrap_or(9)), i * step))));
        i += 1.0;
    }
    ticks
}

/// Three digits, or all before the point.
pub(super) fn figure_words(figure: f64) -> String {
    if figure == 0.0 {
        return "0".to_owned();
    }
    // 9.996 is 10.0, not 10.00: what counts is the figure when it is rounded.
    let decimals = (0..9_u8).find(|d| figure * 10_f64.powi((*d).into()) >= 99.95 - 1e-9).unwrap_or(9);
    let words = format!("{figure:.*}", usize::from(decimals));
    let words = if words.contains('.') { words.trim_end_matches('0').trim_end_matches('.') } else { &words };
    grouped(words)
}

/// 1234567.8 as 1,234,567.8.
fn grouped(digits: &str) -> String {
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    fn near(a: Option<f64>, b: f64) -> bool {
        a.is_some_and(|a| (a - b).abs() < 1e-6)
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(labels(&Scale::linear(98.7)), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(&Scale::linear(0.93)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(&Scale::linear(5_100.0)), ["0", "2,000", "4,000", "6,000"]);
        assert_eq!(labels(&Scale::linear(100.0)), ["0", "20", "40", "60", "80", "100"], "no empty step above");
        assert!(near(Scale::linear(100.0).at(25.0), 0.25));
        assert_eq!(labels(&Scale::linear(0.0)).len(), 6, "nothing but zeroes has an axis too");
        assert_eq!(labels(&Scale::exact(12.3)), ["0", "2", "4", "6", "8", "10", "12"]);
    }

    #[test]
    fn logarithmic_ticks_are_round() {
        assert_eq!(labels(&Scale::log(11.0, 340.0)), ["10", "20", "50", "100", "200", "500"]);
        assert_eq!(labels(&Scale::log(0.3, 20_000.0)), ["1", "10", "100", "1,000", "10,000"]);
        assert_eq!(labels(&Scale::log(10.0, 10.0)), ["10", "20"], "one figure has an axis too");
        assert_eq!(labels(&Scale::log(1_000.0, 1_000.0)), ["1,000", "2,000"]);
        let scale = Scale::log(1.0, 100.0);
        assert!(near(scale.at(10.0), 0.5) && near(scale.at(1.0), 0.0) && near(scale.at(100.0), 1.0));
        assert_eq!((scale.at(0.0), scale.at(101.0)), (None, None));
    }

    #[test]
    fn each_nine_is_as_far_from_the_last_one() {
        let scale = Scale::percentiles(50.0);
        assert_eq!(labels(&scale), ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        for (i, p) in [0.0, 90.0, 99.0, 99.9, 99.99].into_iter().enumerate() {
            assert!(near(scale.at(p), f64::from(u8::try_from(i).unwrap()) / 4.0), "{p}");
        }
        assert_eq!((scale.at(100.0), scale.at(-1.0), scale.at(99.999)), (None, None, None));
        let longer = Scale::percentiles(99.9995);
        assert_eq!(longer.ticks.last().unwrap().1, "99.999 %");
        assert!(longer.at(99.9995).is_some());
    }

    #[test]
    fn figures_have_three_digits() {
        for (figure, words) in [
            (0.0, "0"),
            (0.01234, "0.0123"),
            (1.5, "1.5"),
            (9.996, "10"),
            (12.345, "12.3"),
            (99.96, "100"),
            (345.6, "346"),
            (1_234_567.8, "1,234,568"),
        ] {
            assert_eq!(figure_words(figure), words);
        }
    }
}
